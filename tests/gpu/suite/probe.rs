//! A small kernel with its inputs, run on a GPU or in the simulator.

use ptxsim::{DevPtr, ElementType, Memory, Module, OobFill, Options, Simulator, Swizzle};
use qcc_runtime::cuda::{Gpu, Launch, TensorElement, TensorMap};
use std::sync::Arc;

/// An argument.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// 4 bytes.
    U32(u32),
    /// The address of memory with this content, which is read back.
    Memory(Vec<u8>),
    /// A tensor map of 32-bit words over fresh memory with this content.
    Map {
        content: Vec<u8>,
        dims: Vec<u64>,
        tile: Vec<u32>,
        swizzle: u32,
    },
}

/// A kernel and one launch of it.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) text: String,
    pub(crate) entry: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) shared: u32,
    pub(crate) inputs: Vec<Input>,
}

impl Probe {
    /// One block of so many threads.
    pub(crate) fn block(text: &str, entry: &str, threads: u32, inputs: Vec<Input>) -> Probe {
        Probe {
            text: text.into(),
            entry: entry.into(),
            grid: [1; 3],
            block: [threads, 1, 1],
            cluster: None,
            shared: 0,
            inputs,
        }
    }

    /// Contents of all memory inputs after the kernel ran on a GPU.
    pub(crate) fn on_gpu(&self, gpu: &Arc<Gpu>) -> qcc_ir::diag::Result<Vec<Vec<u8>>> {
        let kernel = gpu.kernel(gpu.load(&self.text)?, &self.entry)?;
        let mut stream = gpu.stream()?;
        let (mut args, mut places) = (Vec::new(), Vec::new());
        for input in &self.inputs {
            args.push(match input {
                Input::U32(v) => v.to_le_bytes().to_vec(),
                Input::Memory(content) => {
                    let at = gpu.alloc(content.len() as u64)?;
                    gpu.upload(at, content)?;
                    places.push((at, content.len(), true));
                    at.to_le_bytes().to_vec()
                }
                Input::Map {
                    content,
                    dims,
                    tile,
                    swizzle,
                } => {
                    let at = gpu.alloc(content.len() as u64)?;
                    gpu.upload(at, content)?;
                    places.push((at, content.len(), false));
                    let map = TensorMap {
                        address: at,
                        element: TensorElement::U32,
                        dims: dims.clone(),
                        strides: vec![dims[0] * 4],
                        tile: tile.clone(),
                        swizzle: *swizzle,
                    };
                    gpu.tensor_map(&map)?.to_vec()
                }
            });
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        stream.launch(&Launch {
            kernel,
            grid: self.grid,
            block: self.block,
            cluster: self.cluster,
            shared: self.shared,
            args: &args,
        })?;
        let mut out = Vec::new();
        for (at, len, _) in places.iter().filter(|p| p.2) {
            let mut content = vec![0; *len];
            stream.download(*at, &mut content)?;
            out.push(content);
        }
        places.into_iter().for_each(|p| gpu.free(p.0));
        Ok(out)
    }

    /// As [`Probe::on_gpu`], in the simulator.
    pub(crate) fn on_sim(&self, options: Options) -> Result<Vec<Vec<u8>>, String> {
        let module = Module::parse(&self.text).map_err(|e| e.to_string())?;
        let mut memory = Memory::new();
        let (mut args, mut places) = (Vec::new(), Vec::new());
        let mut place = |content: &[u8]| -> Result<DevPtr, String> {
            let at = memory
                .alloc(content.len() as u64)
                .map_err(|e| e.to_string())?;
            memory.write(at, content).map_err(|e| e.to_string())?;
            Ok(at)
        };
        for input in &self.inputs {
            args.push(match input {
                Input::U32(v) => ptxsim::Arg::U32(*v),
                Input::Memory(content) => {
                    let at = place(content)?;
                    places.push((at, content.len()));
                    ptxsim::Arg::Ptr(at)
                }
                Input::Map {
                    content,
                    dims,
                    tile,
                    swizzle,
                } => {
                    let map = ptxsim::TensorMap {
                        address: place(content)?.0,
                        element: ElementType::U32,
                        dims: dims.clone(),
                        strides: vec![dims[0] * 4],
                        box_dims: tile.clone(),
                        swizzle: match swizzle {
                            0 => Swizzle::None,
                            32 => Swizzle::B32,
                            64 => Swizzle::B64,
                            _ => Swizzle::B128,
                        },
                        fill: OobFill::Zero,
                    };
                    let bytes = map.encode().map_err(|e| e.to_string())?;
                    ptxsim::Arg::Bytes(bytes.to_vec())
                }
            });
        }
        let mut launch = ptxsim::Launch::new(self.grid, self.block, args);
        launch.cluster = self.cluster.unwrap_or_default();
        launch.shared_bytes = self.shared;
        Simulator::new(options)
            .launch(&module, &self.entry, &launch, &mut memory)
            .map_err(|f| f.to_string())?;
        let read = |(at, len): (DevPtr, usize)| {
            let mut content = vec![0; len];
            let done = memory.read(at, &mut content);
            done.map(|()| content).map_err(|e| e.to_string())
        };
        places.into_iter().map(read).collect()
    }
}

/// The bytes of words.
pub(crate) fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The words of bytes.
pub(crate) fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    bytes.chunks_exact(4).map(word).collect()
}
