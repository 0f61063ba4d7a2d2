//! A protobuf writer for test models. It shares nothing with the reader under test.

/// A protobuf message under construction.
#[derive(Clone, Default)]
pub(crate) struct Msg(pub(crate) Vec<u8>);

impl Msg {
    pub(crate) fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn int(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value as u64)
    }

    pub(crate) fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut out = self.varint(field << 3 | 2).varint(value.len() as u64);
        out.0.extend_from_slice(value);
        out
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn msg(self, field: u64, value: &Msg) -> Self {
        self.bytes(field, &value.0)
    }

    pub(crate) fn float(self, field: u64, value: f32) -> Self {
        let mut out = self.varint(field << 3 | 5);
        out.0.extend_from_slice(&value.to_le_bytes());
        out
    }
}

/// A model of operator set 17.
pub(crate) fn model(graph: &Msg) -> Vec<u8> {
    model_of(graph, 17)
}

/// A model of an operator set.
pub(crate) fn model_of(graph: &Msg, opset: i64) -> Vec<u8> {
    let opset = Msg::default().int(2, opset);
    Msg::default().int(1, 8).msg(8, &opset).msg(7, graph).0
}

/// A FLOAT tensor called `w` without data.
pub(crate) fn tensor(dims: &[i64]) -> Msg {
    let head = Msg::default().int(2, 1).text(8, "w");
    dims.iter().fold(head, |t, &d| t.int(1, d))
}

/// A node with a name.
pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Msg {
    let named = Msg::default().text(3, "the_node").text(4, op);
    let read = inputs.iter().fold(named, |n, i| n.text(1, i));
    outputs.iter().fold(read, |n, o| n.text(2, o))
}

/// A value of an element type whose dimensions are numbers or names.
pub(crate) fn value(name: &str, elem: i64, dims: &[&str]) -> Msg {
    let dims = dims.iter().map(|d| match d.parse::<i64>() {
        Ok(n) => Msg::default().int(1, n),
        Err(_) => Msg::default().text(2, d),
    });
    let shape = dims.fold(Msg::default(), |s, d| s.msg(1, &d));
    let ty = Msg::default().int(1, elem).msg(2, &shape);
    let ty = Msg::default().msg(1, &ty);
    Msg::default().text(1, name).msg(2, &ty)
}
