//! From a launch to a machine: parameters, cluster shape, shared memory, module variables.

use super::Machine;
use crate::fault::{Fault, FaultKind};
use crate::isa::program::{GlobalVar, Program};
use crate::launch::{Launch, Options};
use crate::memory::{DevPtr, Memory};

/// Opt-in shared memory of a block on the largest supported chip, and what static variables may take.
const MAX_SHARED: u32 = 227 * 1024;

fn refuse<T>(program: &Program, message: String) -> Result<T, Box<Fault>> {
    Err(Box::new(Fault {
        kind: FaultKind::Launch,
        message,
        kernel: program.name.clone(),
        line: 0,
        block: [0; 3],
        note: None,
        thread: None,
    }))
}

/// Places the module's variables in memory at its first launch.
pub(super) fn place_variables(
    program: &Program,
    id: u64,
    vars: &[GlobalVar],
    memory: &mut Memory,
) -> Result<(), Box<Fault>> {
    if memory.variables.contains_key(&id) {
        return Ok(());
    }
    let mut addresses = Vec::with_capacity(vars.len());
    for v in vars {
        let place = memory.alloc(u64::from(v.size)).and_then(|p: DevPtr| {
            let zero = vec![0; v.size as usize];
            memory.write(p, v.init.as_deref().unwrap_or(&zero))?;
            Ok(p)
        });
        match place {
            Ok(p) => addresses.push(p.0),
            Err(e) => return refuse(program, e.to_string()),
        }
    }
    memory.variables.insert(id, addresses);
    Ok(())
}

/// Checks a launch and prepares what all its blocks share.
pub(super) fn machine<'a>(
    program: &'a Program,
    addresses: &[u64],
    launch: &'a Launch,
    options: &'a Options,
    memory: &'a Memory,
) -> Result<Machine<'a>, Box<Fault>> {
    let threads = check_shape(program, launch)?;
    let cluster = cluster(program, launch)?;
    let end = u64::from(program.dynamic_start) + u64::from(launch.shared_bytes);
    let shared_end = if launch.shared_bytes == 0 {
        program.static_end
    } else {
        end.min(u64::from(u32::MAX)) as u32
    };
    if end - 1024 > u64::from(MAX_SHARED) + 1024 {
        return refuse(
            program,
            format!(
                "{} bytes of shared memory are above {MAX_SHARED}",
                end - 1024
            ),
        );
    }
    let mut consts = program.consts.clone();
    for r in &program.relocs {
        consts[r.constant] = [addresses[r.var].wrapping_add(r.off as u64); 32];
    }
    let params = parameters(program, launch)?;
    Ok(Machine {
        program,
        consts,
        memory,
        params,
        launch,
        cluster,
        options,
        shared_end,
        warps: threads.div_ceil(32) as usize,
    })
}

fn check_shape(program: &Program, launch: &Launch) -> Result<u32, Box<Fault>> {
    let threads = launch
        .block
        .iter()
        .try_fold(1u32, |n, d| n.checked_mul(*d))
        .unwrap_or(0);
    if threads == 0 || threads > 1024 || launch.block[2] > 64 {
        return refuse(
            program,
            format!("a block of {:?} threads is not possible", launch.block),
        );
    }
    let blocks = launch
        .grid
        .iter()
        .try_fold(1u64, |n, d| n.checked_mul(u64::from(*d)))
        .unwrap_or(0);
    if blocks == 0 || launch.grid[1] > 65535 || launch.grid[2] > 65535 {
        return refuse(
            program,
            format!("a grid of {:?} blocks is not possible", launch.grid),
        );
    }
    if let Some((max, required)) = program.max_threads {
        let most: u64 = max.iter().map(|m| u64::from(*m)).product();
        let fits = if required {
            launch.block == max
        } else {
            u64::from(threads) <= most
        };
        if !fits {
            return refuse(
                program,
                format!(
                    "a block of {:?} threads where the kernel allows {max:?}",
                    launch.block
                ),
            );
        }
    }
    Ok(threads)
}

fn cluster(program: &Program, launch: &Launch) -> Result<[u32; 3], Box<Fault>> {
    let asked = if launch.cluster.contains(&0) {
        None
    } else {
        Some(launch.cluster)
    };
    let cluster = match (program.cluster, asked) {
        (Some(a), Some(b)) if a != b => {
            return refuse(
                program,
                format!("cluster {b:?} where the kernel requires {a:?}"),
            );
        }
        (a, b) => a.or(b).unwrap_or([1; 3]),
    };
    let n: u64 = cluster.iter().map(|c| u64::from(*c)).product();
    if n == 0 || n > 16 || (0..3).any(|i| !launch.grid[i].is_multiple_of(cluster[i])) {
        return refuse(
            program,
            format!(
                "cluster {cluster:?} does not divide the grid {:?} or is above 16 blocks",
                launch.grid
            ),
        );
    }
    Ok(cluster)
}

fn parameters(program: &Program, launch: &Launch) -> Result<Vec<u8>, Box<Fault>> {
    if launch.args.len() != program.params.len() {
        return refuse(
            program,
            format!(
                "{} arguments for {} parameters",
                launch.args.len(),
                program.params.len()
            ),
        );
    }
    let mut out = vec![0; program.param_bytes as usize];
    for (arg, p) in launch.args.iter().zip(&program.params) {
        let bytes = arg.bytes();
        if bytes.len() != p.size as usize {
            return refuse(
                program,
                format!(
                    "parameter `{}` has {} bytes, its argument {}",
                    p.name,
                    p.size,
                    bytes.len()
                ),
            );
        }
        out[p.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(out)
}
