//! IN and OUT (SDM vol. 2, under their names; vol. 1, "Input/Output").

use emu_core::engine::Step;

use crate::exception::Exception;
use crate::extension::{Intercept, ask_after};
use crate::processor::P;
use crate::registers::RAX;
use crate::system::{first, set};
use crate::{debug, smm, task};

/// Whether the program may use `size` ports from `port` on: by IOPL, or by the TSS's bitmap ("I/O Protection").
pub(crate) fn require_port(h: &mut P, port: u64, size: u8) -> Step {
    let asks = h.arch.is_v8086() || h.arch.is_protected() && h.arch.cpl() > h.arch.iopl();
    if asks && !task::permits(h, port, size)? {
        return Err(Exception::gp(0).into());
    }
    debug::sees_port(h, port, size);
    Ok(())
}

pub(crate) fn input(h: &mut P, size: u32) -> Step {
    let port = first(h) as u16;
    require_port(h, port.into(), size as u8)?;
    ask_after(h, || Intercept::In { port, size: size as u8, string: false, repeats: false })?;
    let value = h.read_port(port.into(), size as u8);
    smm::note_io(h, port, size as u8, true, None);
    let old = h.core.regs[usize::from(RAX)];
    let new = match size {
        1 => old & !0xff | value & 0xff,
        2 => old & !0xffff | value & 0xffff,
        _ => value & 0xffff_ffff,
    };
    set(h, RAX, new);
    Ok(())
}

pub(crate) fn output(h: &mut P, size: u32) -> Step {
    let port = first(h) as u16;
    require_port(h, port.into(), size as u8)?;
    ask_after(h, || Intercept::Out { port, size: size as u8, string: false, repeats: false })?;
    let value = h.core.regs[usize::from(RAX)] & (u64::MAX >> (64 - 8 * size));
    h.write_port(port.into(), size as u8, value);
    smm::note_io(h, port, size as u8, false, None);
    Ok(())
}
