//! Attribute words: the dotted parts of an operation's name, `cvt.rn.sat`, `ld.cg.off16`.
//!
//! Each attribute is one word. A flag whose unset form prints nothing is parsed as unset when
//! the next word is not its own, so printing and parsing stay inverse without a grammar per op.

/// An attribute that prints as one word of an operation's name.
pub(crate) trait Word: Sized {
    /// The word; empty when the attribute is unset.
    fn word(&self) -> String;
    /// The attribute that this word spells.
    fn parse(word: &str) -> Option<Self>;
    /// The value meant when no word is there.
    fn absent() -> Option<Self> {
        Self::parse("")
    }
}

/// The words of an operation's name that are still to be read.
pub(crate) struct Words<'a>(std::iter::Peekable<std::str::Split<'a, char>>);

impl<'a> Words<'a> {
    pub(crate) fn new(head: &'a str) -> Self {
        Words(head.split('.').peekable())
    }

    pub(crate) fn first(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    pub(crate) fn take<T: Word>(&mut self) -> Option<T> {
        if let Some(value) = self
            .0
            .peek()
            .filter(|w| !w.is_empty())
            .and_then(|w| T::parse(w))
        {
            self.0.next();
            return Some(value);
        }
        T::absent()
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.peek().is_none()
    }
}

macro_rules! int_word {
    ($($ty:ty),*) => {$(
        impl Word for $ty {
            fn word(&self) -> String {
                self.to_string()
            }
            fn parse(word: &str) -> Option<Self> {
                word.parse().ok().filter(|v: &Self| v.to_string() == word)
            }
        }
    )*};
}
int_word!(u8, u16, u32);

impl Word for crate::DType {
    fn word(&self) -> String {
        self.name().to_string()
    }
    fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

impl Word for super::Space {
    fn word(&self) -> String {
        self.name().to_string()
    }
    fn parse(word: &str) -> Option<Self> {
        super::Space::ALL.into_iter().find(|s| s.name() == word)
    }
}

/// Declares an enum whose variants are words. The word `""` is the unset form.
macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $var:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $var),+ }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$var),+];

            /// The word in an operation's name; empty for the unset form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$var => $text),+ }
            }
        }

        impl $crate::kernel::word::Word for $name {
            fn word(&self) -> String {
                self.name().to_string()
            }
            fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == word)
            }
        }
    };
}
pub(crate) use word_enum;

/// Declares the operation table: variant, attributes, first word of the name.
macro_rules! op_table {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$vmeta:meta])* $var:ident $({ $($(#[$fmeta:meta])* $field:ident : $ty:ty),+ $(,)? })? = $head:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $var $({ $($(#[$fmeta])* $field: $ty),+ })?),+
        }

        impl $name {
            /// First word of every operation's name, in table order.
            pub const HEADS: &'static [&'static str] = &[$($head),+];

            /// The name with its attributes: `cvt.rn.sat`.
            pub fn name(&self) -> String {
                match self {
                    $($name::$var $({ $($field),+ })? => {
                        #[allow(unused_mut)]
                        let mut name = String::from($head);
                        $($(
                            let word = $crate::kernel::word::Word::word($field);
                            if !word.is_empty() {
                                name.push('.');
                                name.push_str(&word);
                            }
                        )+)?
                        name
                    }),+
                }
            }

            /// The operation of this name.
            pub fn parse(name: &str) -> Option<$name> {
                let mut words = $crate::kernel::word::Words::new(name);
                let op = match words.first()? {
                    $($head => $name::$var $({ $($field: words.take()?),+ })?,)+
                    _ => return None,
                };
                words.is_empty().then_some(op)
            }
        }
    };
}
pub(crate) use op_table;
