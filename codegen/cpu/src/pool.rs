//! Memory of values that are dead, for the next results of the same format and extents.
//!
//! Fresh memory costs more than most elementwise ops: it is zeroed, and the system hands it out
//! page by page. In a model the same extents come back in every layer and every run.

use qcc_ir::diag::Result;
use qcc_ir::{Bundle, DType, Tensor};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Free = BTreeMap<(DType, Vec<u64>), Vec<Tensor>>;

/// Tensors to be written again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Free>,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // The map is whole between any two of its operations, so a panic elsewhere harms nothing.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tensor of these extents. Its elements are whatever was there: the caller writes all.
    pub(crate) fn take(&self, dtype: DType, dims: &[u64]) -> Result<Tensor> {
        let found = self
            .lock()
            .get_mut(&(dtype, dims.to_vec()))
            .and_then(Vec::pop);
        match found {
            Some(t) => Ok(t),
            None => Tensor::zeros(dtype, dims),
        }
    }

    /// Keeps the memory of a tensor.
    pub(crate) fn give(&self, t: Tensor) {
        let key = (t.dtype(), t.dims().to_vec());
        self.lock().entry(key).or_default().push(t);
    }

    /// Keeps the memory of a value.
    pub(crate) fn give_all(&self, b: Bundle) {
        self.give(b.codes);
        [b.scale, b.zero]
            .into_iter()
            .flatten()
            .for_each(|t| self.give(t));
    }

    /// Frees everything.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

/// The f32 numbers of a result under construction: the result itself where it is f32.
pub(crate) struct Numbers<'p> {
    tensor: Tensor,
    pool: &'p Pool,
}

impl<'p> Numbers<'p> {
    /// Room for numbers of these extents, all to be written.
    pub(crate) fn new(pool: &'p Pool, dims: &[u64]) -> Result<Self> {
        Ok(Numbers {
            tensor: pool.take(DType::F32, dims)?,
            pool,
        })
    }

    pub(crate) fn get(&self) -> Result<&[f32]> {
        self.tensor.as_slice()
    }

    pub(crate) fn get_mut(&mut self) -> Result<&mut [f32]> {
        self.tensor.as_slice_mut()
    }

    /// The numbers, rounded to `dtype`.
    pub(crate) fn finish(self, dtype: DType, threads: &crate::Threads) -> Result<Tensor> {
        if dtype == DType::F32 {
            return Ok(self.tensor);
        }
        let dims = self.tensor.dims().to_vec();
        let t = crate::value::encode_floats(dtype, &dims, self.tensor.as_slice()?, threads)?;
        self.pool.give(self.tensor);
        Ok(t)
    }

    /// Keeps the memory, once the numbers are no longer needed.
    pub(crate) fn release(self) {
        self.pool.give(self.tensor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_for_the_same_extents_only() {
        let pool = Pool::default();
        let mut t = pool.take(DType::F32, &[2, 3]).unwrap();
        t.as_slice_mut::<f32>().unwrap().fill(7.0);
        pool.give(t);
        assert_eq!(
            pool.take(DType::F32, &[3, 2])
                .unwrap()
                .as_slice::<f32>()
                .unwrap(),
            [0.0; 6]
        );
        assert_eq!(
            pool.take(DType::F32, &[2, 3])
                .unwrap()
                .as_slice::<f32>()
                .unwrap(),
            [7.0; 6]
        );
        pool.give(pool.take(DType::F32, &[2, 3]).unwrap());
        pool.clear();
        assert!(pool.lock().is_empty());
    }
}
