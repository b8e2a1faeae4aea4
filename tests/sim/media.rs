//! Devices that several logs and recovery share, and whose power may go in the middle of a
//! blocking write.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use spool::batch::BatchHeader;
use spool::disk::{Device, DiskError};
use spool::sim::{Random, SECTOR, SimDevice};

/// When the power goes while something blocking writes.
#[derive(Debug)]
pub(super) struct Fuse {
    /// Writes until then; `u64::MAX` for never.
    left: Cell<u64>,
    written: Cell<u64>,
    random: RefCell<Random>,
    /// As planted: blocks of zeros are not written.
    pub(super) drop_strikes: Cell<bool>,
}

impl Fuse {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(u64::MAX),
            written: Cell::new(0),
            random: RefCell::new(Random::new(seed)),
            drop_strikes: Cell::new(false),
        })
    }

    /// The power goes at the write after so many.
    pub(super) fn burn_after(&self, writes: u64) {
        self.left.set(writes);
        self.written.set(0);
    }

    pub(super) fn never(&self) {
        self.burn_after(u64::MAX);
    }
}

/// One device: a handle.
#[derive(Clone, Debug)]
pub(super) struct Medium {
    name: Rc<str>,
    device: Rc<RefCell<SimDevice>>,
    fuse: Rc<Fuse>,
}

impl Medium {
    pub(super) fn new(name: &str, bytes: u64, fuse: &Rc<Fuse>) -> Self {
        let device = Rc::new(RefCell::new(SimDevice::new(name, bytes)));
        Self { name: name.into(), device, fuse: Rc::clone(fuse) }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut SimDevice) -> T) -> T {
        act(&mut self.device.borrow_mut())
    }

    /// Parts of the write land, and nothing after it.
    fn last_write(&self, offset: u64, from: &[u8]) {
        let mut random = self.fuse.random.borrow_mut();
        let choice = random.below(3);
        for (n, sector) in from.chunks(SECTOR).enumerate() {
            let lands = match choice {
                0 => false,
                1 => true,
                _ => random.one_in(2),
            };
            if lands {
                let at = offset + u64::try_from(n * SECTOR).expect("small");
                let _ = self.device.borrow_mut().write(at, sector);
            }
        }
    }
}

impl Device for Medium {
    fn bytes(&self) -> u64 {
        self.device.borrow().bytes()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.device.borrow_mut().read(offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        match self.fuse.left.get() {
            0 => {
                if self.fuse.written.replace(u64::MAX) != u64::MAX {
                    self.last_write(offset, from);
                }
                return Err(DiskError::Io(5));
            }
            u64::MAX => {}
            n => self.fuse.left.set(n - 1),
        }
        if self.fuse.drop_strikes.get()
            && BatchHeader::decode(from).is_some_and(|(header, _)| header.is_struck())
        {
            return Ok(());
        }
        self.device.borrow_mut().write(offset, from)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.device.borrow_mut().sync()
    }
}
