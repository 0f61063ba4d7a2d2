//! A GPU as the executor sees devices: a recording is a captured graph.

use qcc_ir::DType;
use qcc_ir::diag::{Diagnostic, Result};
use std::sync::{Arc, Mutex};

use super::error::{impossible, vendor};
use super::memory::lock;
use super::{Gemm, Gpu, Graph, Kernel, Launch, MatrixType, TensorElement, TensorMap};
use crate::gpu::driver::{
    Address, ArgBytes, Capability, Command, Driver, GemmNumbers, LaunchNumbers, Recording, Stream,
    TensorMapNumbers, Work,
};

/// A GPU, as a device of the executor.
pub(crate) struct CudaDriver {
    gpu: Arc<Gpu>,
    /// Kernels by the executor's numbers.
    kernels: Arc<Mutex<Vec<Kernel>>>,
}

impl CudaDriver {
    pub(crate) fn new(gpu: Arc<Gpu>) -> Self {
        CudaDriver {
            gpu,
            kernels: Arc::default(),
        }
    }
}

impl Driver for CudaDriver {
    fn capability(&self, vendor: bool) -> Capability {
        // Instructions of one architecture exist from Hopper on, and every Hopper chip has them.
        let sm = self.gpu.info().sm;
        Capability {
            sm,
            specific: sm >= 90,
            vendor: vendor && self.gpu.has_cublaslt(),
        }
    }

    fn alloc(&self, bytes: u64) -> Result<Address> {
        self.gpu.alloc(bytes)
    }

    fn free(&self, at: Address) {
        self.gpu.free(at);
    }

    fn upload(&self, at: Address, bytes: &[u8]) -> Result<()> {
        self.gpu.upload(at, bytes)
    }

    fn load(&self, text: &str) -> Result<usize> {
        self.gpu.load(text)
    }

    fn kernel(&self, module: usize, symbol: &str) -> Result<usize> {
        let kernel = self.gpu.kernel(module, symbol)?;
        let mut kernels = lock(&self.kernels);
        kernels.push(kernel);
        Ok(kernels.len() - 1)
    }

    fn tensor_map(&self, map: &TensorMapNumbers<Address>) -> Result<[u8; 128]> {
        self.gpu.tensor_map(&TensorMap {
            address: map.address,
            element: element(map.dtype)?,
            dims: map.dims.clone(),
            strides: map.strides.clone(),
            tile: map.tile.clone(),
            swizzle: map.swizzle,
        })
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(CudaStream {
            stream: self.gpu.stream()?,
            kernels: self.kernels.clone(),
        }))
    }
}

struct CudaStream {
    stream: super::Stream,
    kernels: Arc<Mutex<Vec<Kernel>>>,
}

impl Stream for CudaStream {
    fn upload(&mut self, at: Address, bytes: &[u8]) -> Result<()> {
        self.stream.upload(at, bytes)
    }

    fn download(&mut self, at: Address, bytes: &mut [u8]) -> Result<()> {
        self.stream.download(at, bytes)
    }

    fn record(&mut self, commands: Vec<Command>) -> Result<Box<dyn Recording>> {
        let kernels = lock(&self.kernels).clone();
        let graph = self.stream.capture(|stream| {
            for command in &commands {
                let place = |d: Diagnostic| d.or_at(format!("step {}", command.step));
                match &command.work {
                    Work::Launch(l) => launch(stream, &kernels, l).map_err(place)?,
                    Work::Gemm(g) => stream.gemm(&gemm(g).map_err(place)?).map_err(place)?,
                }
            }
            Ok(())
        })?;
        Ok(Box::new(CudaRecording(graph)))
    }
}

/// A graph of all commands of a run. A fault of one is reported at the next download, without the
/// step: the GPU does not say which it was.
struct CudaRecording(Graph);

impl Recording for CudaRecording {
    fn play(&mut self) -> Result<()> {
        self.0.replay()
    }

    fn micros(&mut self, repetitions: u32) -> Result<Option<f64>> {
        self.0.micros(repetitions).map(Some)
    }
}

fn launch(
    stream: &mut super::Stream,
    kernels: &[Kernel],
    l: &LaunchNumbers<ArgBytes>,
) -> Result<()> {
    let kernel = kernels.get(l.kernel).copied();
    let args: Vec<&[u8]> = l.args.iter().map(ArgBytes::bytes).collect();
    stream.launch(&Launch {
        kernel: kernel.ok_or_else(|| impossible(format!("no kernel {}", l.kernel)))?,
        grid: l.grid,
        block: l.block,
        cluster: l.cluster,
        shared: l.shared,
        args: &args,
    })
}

fn gemm(g: &GemmNumbers<Address>) -> Result<Gemm> {
    Ok(Gemm {
        m: g.m,
        n: g.n,
        k: g.k,
        input: matrix(g.input)?,
        output: matrix(g.output)?,
        a: g.a,
        b: g.b,
        d: g.d,
        a_scale: g.a_scale,
        b_scale: g.b_scale,
        bias: g.bias,
        gelu: g.gelu,
        workspace: g.workspace.0,
        workspace_bytes: g.workspace.1,
        proposal: 0,
    })
}

fn matrix(dtype: DType) -> Result<MatrixType> {
    Ok(match dtype {
        DType::F16 => MatrixType::F16,
        DType::BF16 => MatrixType::Bf16,
        DType::F32 => MatrixType::F32,
        DType::E4M3 => MatrixType::E4m3,
        DType::I8 => MatrixType::I8,
        DType::I32 => MatrixType::I32,
        other => return Err(vendor(format!("no product of {other}"))),
    })
}

fn element(dtype: DType) -> Result<TensorElement> {
    Ok(match dtype {
        DType::F16 => TensorElement::F16,
        DType::BF16 => TensorElement::Bf16,
        DType::F32 => TensorElement::F32,
        DType::I32 => TensorElement::I32,
        DType::U32 => TensorElement::U32,
        DType::I64 => TensorElement::I64,
        DType::I16 | DType::U16 => TensorElement::U16,
        DType::I8 | DType::U8 | DType::E4M3 | DType::E5M2 => TensorElement::U8,
        other => return Err(impossible(format!("a tensor map of {other}"))),
    })
}
