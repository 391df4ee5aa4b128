//! The bus: physical ranges (and x86 ports) to devices, and the wires between devices.

use crate::device::{Access, Device, DeviceCx, DeviceId, Request, Signal, Source};
use crate::door::Door;
use crate::iommu::Iommu;
use crate::ram::Ram;
use crate::time::VirtualTime;

/// The two address spaces that devices answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Physical memory addresses.
    Memory,
    /// x86 I/O ports.
    Port,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    space: Space,
    base: u64,
    size: u64,
    priority: i32,
    device: DeviceId,
    /// Offset within the device of the first byte of the mapping.
    offset: u64,
}

/// Addresses in a row that one mapping answers for, where all others have been heard.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: u64,
    last: u64,
    mapping: Mapping,
}

impl Stretch {
    /// The offset of an address within the device.
    #[inline]
    fn offset(&self, address: u64) -> u64 {
        address.wrapping_sub(self.mapping.base).wrapping_add(self.mapping.offset)
    }

    /// What stands behind `self` goes on with it, register by register.
    fn goes_on_in(&self, next: &Stretch) -> bool {
        let key = |m: &Mapping| (m.device, m.base, m.offset);
        self.last.wrapping_add(1) == next.first && key(&self.mapping) == key(&next.mapping)
    }
}

/// Where a device's output line leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// To an input of another device.
    Device {
        /// The device, an interrupt controller mostly.
        device: DeviceId,
        /// Its input.
        input: u32,
    },
    /// To a pin of a vCPU.
    Vcpu {
        /// Index of the vCPU.
        vcpu: u32,
        /// The architecture's number of the pin.
        pin: u32,
    },
}

/// A signal that has reached a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuSignal {
    /// A pin has this level now.
    Pin {
        /// The architecture's number of the pin.
        pin: u32,
        /// The level.
        level: bool,
    },
    /// A message from a device; see [`Signal::Vcpu`].
    Message {
        /// What it means is between the device and the architecture.
        message: u32,
        /// Likewise.
        value: u64,
    },
    /// A message of another vCPU that takes more words.
    Words {
        /// What it means is the architecture's.
        message: u32,
        /// Likewise.
        words: [u64; 2],
    },
}

/// What a bus access is made with: the parts of the machine that are lent to devices.
pub struct BusCx<'a> {
    /// Virtual time of the access.
    pub now: VirtualTime,
    /// Guest RAM.
    pub ram: &'a mut Ram,
    /// The door to the outside.
    pub door: &'a mut Door,
}

/// All devices, their place in the address spaces, and their wires.
#[derive(Default)]
pub struct Bus {
    devices: Vec<Box<dyn Device>>,
    /// The best first.
    map: Vec<Mapping>,
    /// What follows from `map`, for memory and for ports: ascending, and apart from each other.
    stretches: [Vec<Stretch>; 2],
    wires: Vec<(DeviceId, u32, Wire)>,
    wakes: Vec<Option<VirtualTime>>,
    /// The earliest of `wakes`.
    earliest: Option<VirtualTime>,
    /// The host bridge, if there is one.
    bridge: Option<DeviceId>,
    /// What it keeps from bus masters: asked again whenever it has been called.
    hidden: Option<(u64, u64)>,
    /// The IOMMU, if there is one.
    iommu: Option<DeviceId>,
    /// The requester ID of each device that has one.
    requesters: Vec<Option<u16>>,
    signals: Vec<(Source, Signal)>,
    /// Signals that have reached vCPUs and that the machine has not delivered yet.
    pub(crate) for_vcpus: Vec<(u32, VcpuSignal)>,
    pub(crate) request: Option<Request>,
}

impl Bus {
    /// Adds a device.
    pub fn add(&mut self, device: Box<dyn Device>) -> DeviceId {
        self.wakes.push(device.wakes_at());
        self.requesters.push(None);
        self.devices.push(device);
        self.earliest = self.wakes.iter().flatten().min().copied();
        DeviceId((self.devices.len() - 1) as u16)
    }

    /// Maps `size` bytes at `base` to `device`, from its register `offset` on. Where mappings overlap the higher priority
    /// answers, among equals the one mapped last.
    pub fn map(&mut self, space: Space, base: u64, size: u64, device: DeviceId, offset: u64, priority: i32) {
        let m = Mapping { space, base, size, priority, device, offset };
        let at = self.map.partition_point(|o| o.priority > priority);
        self.map.insert(at, m);
        self.stretches[space as usize] = self.stretches_in(space);
    }

    fn stretches_in(&self, space: Space) -> Vec<Stretch> {
        let map = || self.map.iter().filter(|m| m.space == space);
        // Whoever answers may change where a mapping begins and behind its end, and nowhere else.
        let mut edges: Vec<u64> = map().flat_map(|m| [Some(m.base), m.base.checked_add(m.size)]).flatten().collect();
        edges.sort_unstable();
        edges.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (i, &first) in edges.iter().enumerate() {
            let last = edges.get(i + 1).map_or(u64::MAX, |next| next - 1);
            let Some(mapping) = map().find(|m| first >= m.base && first - m.base < m.size) else { continue };
            let next = Stretch { first, last, mapping: *mapping };
            match stretches.last_mut().filter(|s| s.goes_on_in(&next)) {
                Some(stretch) => stretch.last = last,
                None => stretches.push(next),
            }
        }
        stretches
    }

    /// This device is the host bridge, which DMA of all devices goes through.
    pub fn hosts(&mut self, bridge: DeviceId) {
        self.bridge = Some(bridge);
        self.ask_bridge();
    }

    /// This device is the IOMMU, which translates accesses and messages that have a requester ID.
    pub fn translates(&mut self, iommu: DeviceId) {
        self.iommu = Some(iommu);
    }

    /// Accesses and messages of this device go out with a requester ID.
    pub fn requests_as(&mut self, device: DeviceId, requester: u16) {
        self.requesters[usize::from(device.0)] = Some(requester);
    }

    fn ask_bridge(&mut self) {
        self.hidden = self.bridge.and_then(|bridge| self.devices[usize::from(bridge.0)].hides());
    }

    /// Maps memory at `base` to the device's registers, from 0 on.
    pub fn map_memory(&mut self, base: u64, size: u64, device: DeviceId) {
        self.map(Space::Memory, base, size, device, 0, 0);
    }

    /// Leads output `line` of `device` along a wire. A line may have several.
    pub fn wire(&mut self, device: DeviceId, line: u32, wire: Wire) {
        self.wires.push((device, line, wire));
    }

    /// Whether any device answers at this address.
    pub fn answers(&self, space: Space, address: u64) -> bool {
        self.find(space, address).is_some()
    }

    /// The device's name.
    pub fn name(&self, device: DeviceId) -> &'static str {
        self.devices[usize::from(device.0)].name()
    }

    /// The devices, in the order in which they were added.
    pub fn devices(&self) -> impl Iterator<Item = &dyn Device> {
        self.devices.iter().map(|d| &**d)
    }

    /// Likewise, to change them (snapshots, reset).
    pub fn devices_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Device>> {
        self.devices.iter_mut()
    }

    /// The device that answers at an address, by its name, and the offset in its registers.
    pub fn device_at(&self, space: Space, address: u64) -> Option<(&'static str, u64)> {
        let stretch = self.find(space, address)?;
        Some((self.devices[usize::from(stretch.mapping.device.0)].name(), stretch.offset(address)))
    }

    #[inline]
    fn find(&self, space: Space, address: u64) -> Option<&Stretch> {
        let stretches = &self.stretches[space as usize];
        let behind = stretches.partition_point(|s| s.first <= address);
        stretches[..behind].last().filter(|s| address <= s.last)
    }

    /// Who answers at `address`, and how many of `size` bytes lie before somebody else does.
    #[inline]
    fn piece(&self, space: Space, address: u64, size: u8) -> (Option<Stretch>, u8) {
        let stretches = &self.stretches[space as usize];
        let behind = stretches.partition_point(|s| s.first <= address);
        let here = stretches[..behind].last().filter(|s| address <= s.last);
        let last = here.map(|s| s.last).or(stretches.get(behind).map(|s| s.first - 1));
        let rest = last.map_or(u64::MAX, |last| last - address).min(u64::from(size) - 1);
        (here.copied(), rest as u8 + 1)
    }

    /// Reads `size` bytes (1 to 8), little-endian. Bytes that no device answers for read as ones; `None` where none does.
    pub fn read(&mut self, space: Space, address: u64, size: u8, cx: BusCx) -> Option<u64> {
        let BusCx { now, ram, door } = cx;
        let (mut value, mut done, mut any) = (0u64, 0u8, false);
        while done < size {
            let at = address.wrapping_add(u64::from(done));
            let (here, n) = self.piece(space, at, size - done);
            let ones = u64::MAX >> (64 - 8 * u32::from(n));
            let part = match here {
                None => ones,
                Some(s) => {
                    any = true;
                    let access = Access { offset: s.offset(at), size: n };
                    self.call(s.mapping.device, now, ram, door, |d, cx| d.read(access, cx)) & ones
                }
            };
            value |= part << (8 * u32::from(done));
            done += n;
        }
        self.settle(now, ram, door);
        any.then_some(value)
    }

    /// Writes `size` bytes (1 to 8), little-endian. Bytes that no device answers for are lost; `None` where none does.
    pub fn write(&mut self, space: Space, address: u64, size: u8, value: u64, cx: BusCx) -> Option<()> {
        let BusCx { now, ram, door } = cx;
        let (mut done, mut any) = (0u8, false);
        while done < size {
            let at = address.wrapping_add(u64::from(done));
            let (here, n) = self.piece(space, at, size - done);
            if let Some(s) = here {
                any = true;
                let access = Access { offset: s.offset(at), size: n };
                let part = value >> (8 * u32::from(done)) & (u64::MAX >> (64 - 8 * u32::from(n)));
                self.call(s.mapping.device, now, ram, door, |d, cx| d.write(access, part, cx));
            }
            done += n;
        }
        self.settle(now, ram, door);
        any.then_some(())
    }

    /// Gives every device whose time has come its tick.
    pub fn tick(&mut self, cx: BusCx) {
        let BusCx { now, ram, door } = cx;
        for i in 0..self.devices.len() {
            if self.wakes[i].is_some_and(|t| t <= now) {
                self.call(DeviceId(i as u16), now, ram, door, |d, cx| d.tick(cx));
            }
        }
        self.settle(now, ram, door);
    }

    /// Gives every device a tick: input has arrived.
    pub fn tick_all(&mut self, cx: BusCx) {
        let BusCx { now, ram, door } = cx;
        for i in 0..self.devices.len() {
            self.call(DeviceId(i as u16), now, ram, door, |d, cx| d.tick(cx));
        }
        self.settle(now, ram, door);
    }

    /// When the next device wants its tick.
    #[inline]
    pub fn wakes_at(&self) -> Option<VirtualTime> {
        self.earliest
    }

    /// Signals have reached vCPUs, and have not been delivered yet: the present instruction has caused them.
    #[inline]
    pub fn has_signals(&self) -> bool {
        !self.for_vcpus.is_empty()
    }

    /// Whether there is anything for the run loop to see to: signals, requests, a wake-up earlier than the planned one.
    pub(crate) fn has_news(&self, planned: Option<VirtualTime>) -> bool {
        let sooner = self.earliest.is_some_and(|t| planned.is_none_or(|p| t < p));
        sooner || self.request.is_some() || !self.for_vcpus.is_empty()
    }

    /// Asks the devices again what is known of them here, after their state was replaced.
    pub(crate) fn refresh(&mut self) {
        self.ask_bridge();
        self.wakes = self.devices.iter().map(|d| d.wakes_at()).collect();
        self.earliest = self.wakes.iter().flatten().min().copied();
    }

    fn call<T>(
        &mut self,
        device: DeviceId,
        now: VirtualTime,
        ram: &mut Ram,
        door: &mut Door,
        f: impl FnOnce(&mut dyn Device, &mut DeviceCx) -> T,
    ) -> T {
        let i = usize::from(device.0);
        let (called, iommu) = lend(&mut self.devices, i, self.iommu);
        let mut cx = DeviceCx {
            now,
            ram,
            requester: self.requesters[i],
            iommu,
            hidden: self.hidden,
            door,
            signals: &mut self.signals,
            request: &mut self.request,
            device,
        };
        let result = f(called, &mut cx);
        if self.bridge == Some(device) {
            self.ask_bridge();
        }
        let wakes = self.devices[i].wakes_at();
        if wakes != self.wakes[i] {
            self.wakes[i] = wakes;
            self.earliest = self.wakes.iter().flatten().min().copied();
        }
        result
    }

    /// Carries signals along their wires until nothing moves. Message writes that form a ring (an MSI that raises
    /// itself) end after a bound that no honest machine comes near.
    #[inline]
    fn settle(&mut self, now: VirtualTime, ram: &mut Ram, door: &mut Door) {
        if !self.signals.is_empty() {
            self.carry_signals(now, ram, door);
        }
    }

    fn carry_signals(&mut self, now: VirtualTime, ram: &mut Ram, door: &mut Door) {
        let mut bound = 10_000;
        let mut next = 0;
        while next < self.signals.len() && bound > 0 {
            let (from, signal) = self.signals[next];
            next += 1;
            bound -= 1;
            match signal {
                Signal::Vcpu { vcpu, message, value } => {
                    self.for_vcpus.push((vcpu, VcpuSignal::Message { message, value }))
                }
                Signal::Msi { address, data } => self.carry_message(from, address, data, now, ram, door),
                Signal::Line { line, level } => {
                    for w in 0..self.wires.len() {
                        let (device, l, wire) = self.wires[w];
                        if device != from.device || l != line {
                            continue;
                        }
                        match wire {
                            Wire::Device { device, input } => {
                                self.call(device, now, ram, door, |d, cx| d.input(input, level, cx))
                            }
                            Wire::Vcpu { vcpu, pin } => self.for_vcpus.push((vcpu, VcpuSignal::Pin { pin, level })),
                        }
                    }
                }
            }
        }
        self.signals.clear();
    }

    /// A message-signalled interrupt, which an IOMMU may take. One to nowhere is lost.
    fn carry_message(
        &mut self,
        from: Source,
        address: u64,
        data: u32,
        now: VirtualTime,
        ram: &mut Ram,
        door: &mut Door,
    ) {
        if let (Some(_), Some(requester)) = (self.iommu, from.requester) {
            let taken = self.call(from.device, now, ram, door, |_, cx| {
                cx.iommu().is_some_and(|(iommu, mut cx)| iommu.message(requester, address, data, &mut cx))
            });
            if taken {
                return;
            }
        } else if let Some(s) = self.find(Space::Memory, address).copied() {
            let access = Access { offset: s.offset(address), size: 4 };
            return self.call(s.mapping.device, now, ram, door, |d, cx| d.write(access, u64::from(data), cx));
        }
        self.call(from.device, now, ram, door, |_, cx| {
            cx.requester = from.requester;
            let _ = cx.dma().store(address, 4, data.into());
        });
    }
}

type Lent<'a> = (&'a mut (dyn Device + 'static), Option<(DeviceId, &'a mut (dyn Iommu + 'static))>);

/// A device, and the IOMMU beside it unless it is that.
fn lend(devices: &mut [Box<dyn Device>], i: usize, iommu: Option<DeviceId>) -> Lent<'_> {
    let Some(id) = iommu.filter(|id| usize::from(id.0) != i) else { return (&mut *devices[i], None) };
    let two = devices.get_disjoint_mut([i, usize::from(id.0)]);
    let [device, iommu] = two.expect("two devices that there are");
    (&mut **device, iommu.iommu().map(|iommu| (id, iommu)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iommu::MasterAccess;

    /// Eight bytes of registers; writing register 0 sets line 0 to its low bit.
    #[derive(Default)]
    struct Bytes([u8; 8]);
    impl Device for Bytes {
        fn name(&self) -> &'static str {
            "bytes"
        }
        fn read(&mut self, a: Access, _: &mut DeviceCx) -> u64 {
            (0..a.size).map(|i| u64::from(self.0[(a.offset as usize + usize::from(i)) % 8]) << (8 * i)).sum()
        }
        fn write(&mut self, a: Access, value: u64, cx: &mut DeviceCx) {
            for i in 0..a.size {
                self.0[(a.offset as usize + usize::from(i)) % 8] = (value >> (8 * i)) as u8;
            }
            if a.offset == 0 {
                cx.line(0, value & 1 != 0);
            }
        }
        fn input(&mut self, line: u32, level: bool, _: &mut DeviceCx) {
            self.0[7] = line as u8 * 16 + u8::from(level);
        }
        fn reset(&mut self) {
            self.0 = [0; 8];
        }
        fn save(&self) -> Vec<u8> {
            self.0.to_vec()
        }
        fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.0 = bytes.try_into().map_err(|_| "8 bytes expected".to_string())?;
            Ok(())
        }
    }

    fn with_bus(f: impl FnOnce(&mut Bus, &mut dyn FnMut(&mut Bus, u64, u8, Option<u64>) -> Option<u64>)) {
        let (mut ram, mut door) = (Ram::default(), Door::default());
        let mut bus = Bus::default();
        f(&mut bus, &mut |bus, at, size, value| {
            let cx = BusCx { now: 0, ram: &mut ram, door: &mut door };
            match value {
                None => bus.read(Space::Memory, at, size, cx),
                Some(v) => bus.write(Space::Memory, at, size, v, cx).map(|()| 0),
            }
        });
    }

    #[test]
    fn an_access_is_cut_where_devices_meet() {
        with_bus(|bus, io| {
            let a = bus.add(Box::<Bytes>::default());
            let b = bus.add(Box::<Bytes>::default());
            bus.map_memory(0x100, 8, a);
            bus.map_memory(0x108, 8, b);
            assert_eq!(io(bus, 0x105, 8, Some(0x8877_6655_4433_2211)), Some(0));
            assert_eq!(io(bus, 0x105, 8, None), Some(0x8877_6655_4433_2211));
            assert_eq!(io(bus, 0x108, 4, None), Some(0x7766_5544));
            assert_eq!(io(bus, 0x10c, 8, None), Some(0xffff_ffff_0000_0088), "beyond the last device: ones");
            assert_eq!(io(bus, 0x200, 4, None), None);
            assert_eq!(io(bus, 0xfe, 2, None), None);
        });
    }

    #[test]
    fn the_higher_priority_answers() {
        with_bus(|bus, io| {
            let a = bus.add(Box::<Bytes>::default());
            let b = bus.add(Box::<Bytes>::default());
            bus.map(Space::Memory, 0x100, 8, a, 0, 0);
            bus.map(Space::Memory, 0x102, 2, b, 0, 1);
            io(bus, 0x100, 8, Some(0x0807_0605_0403_0201));
            assert_eq!(bus.devices().nth(1).unwrap().save(), [3, 4, 0, 0, 0, 0, 0, 0]);
            assert_eq!(bus.devices().next().unwrap().save(), [1, 2, 0, 0, 5, 6, 7, 8]);
        });
    }

    /// Lets requester 5 into pages that are 64 KiB higher, but not into odd ones, and takes messages to FEEx_xxxxh.
    #[derive(Default)]
    struct Higher(Bytes);
    impl Iommu for Higher {
        fn translate(&mut self, access: MasterAccess, cx: &mut DeviceCx) -> Option<(u64, u64)> {
            let is_free = access.requester == 5 && access.address & 0x1000 == 0;
            cx.line(0, is_free);
            is_free.then_some((access.address + 0x1_0000, 0x1000 - access.address % 0x1000))
        }
        fn message(&mut self, requester: u16, address: u64, data: u32, cx: &mut DeviceCx) -> bool {
            let is_message = address >> 20 == 0xfee;
            if is_message {
                cx.msi(0x100, data << 16 | u32::from(requester));
            }
            is_message
        }
    }
    impl Device for Higher {
        fn name(&self) -> &'static str {
            "higher"
        }
        fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
            0
        }
        fn write(&mut self, _: Access, _: u64, _: &mut DeviceCx) {}
        fn iommu(&mut self) -> Option<&mut (dyn Iommu + 'static)> {
            Some(self)
        }
        fn reset(&mut self) {}
        fn save(&self) -> Vec<u8> {
            self.0.save()
        }
        fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.0.restore(bytes)
        }
    }

    /// Copies eight bytes to the address that is written.
    struct Master;
    impl Device for Master {
        fn name(&self) -> &'static str {
            "master"
        }
        fn read(&mut self, a: Access, cx: &mut DeviceCx) -> u64 {
            cx.dma().load(a.offset, 8).unwrap_or(u64::MAX)
        }
        fn write(&mut self, a: Access, value: u64, cx: &mut DeviceCx) {
            match a.size {
                4 => cx.msi(value, 0x77),
                _ => drop(cx.dma().write(a.offset, &value.to_le_bytes())),
            }
        }
        fn reset(&mut self) {}
        fn save(&self) -> Vec<u8> {
            Vec::new()
        }
        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn an_iommu_translates_what_has_a_requester_id() {
        let (mut ram, mut door) = (Ram::default(), Door::default());
        ram.add(0, 0x2_0000).unwrap();
        for requester in [None, Some(5), Some(6)] {
            for address in (0..0x2_0000).step_by(8) {
                ram.store(address, 8, address).unwrap();
            }
            let mut bus = Bus::default();
            let master = bus.add(Box::new(Master));
            let messages = bus.add(Box::<Bytes>::default());
            bus.map_memory(0x1_0000_0000, 0x1_0000, master);
            bus.map_memory(0x100, 8, messages);
            let iommu = bus.add(Box::<Higher>::default());
            bus.translates(iommu);
            bus.wire(iommu, 0, Wire::Vcpu { vcpu: 0, pin: 1 });
            requester.iter().for_each(|id| bus.requests_as(master, *id));
            let mut io = |at: u64, size, value| {
                let cx = BusCx { now: 0, ram: &mut ram, door: &mut door };
                match value {
                    None => bus.read(Space::Memory, (1 << 32) + at, size, cx),
                    Some(value) => bus.write(Space::Memory, (1 << 32) + at, size, value, cx).map(|()| 0),
                }
            };
            assert_eq!(
                [0x2008, 0x1008].map(|at| io(at, 8, None).unwrap()),
                match requester {
                    None => [0x2008, 0x1008],
                    Some(5) => [0x1_2008, u64::MAX],
                    _ => [u64::MAX; 2],
                }
            );
            io(0xffc, 8, Some(0x1111_2222_3333_4444));
            io(0, 4, Some(0xfee0_0000));
            io(0, 4, Some(0x4000));
            let signals = bus.for_vcpus.len();
            let got = [0xff8, 0x1000, 0x1_0ff8].map(|at| ram.load(at, 8).unwrap());
            let (message, store) = (bus.devices().nth(1).unwrap().save(), [0x4000, 0x1_4000].map(|at| ram.load(at, 4)));
            match requester {
                None => {
                    assert_eq!(got, [0x3333_4444_0000_0ff8, 0x1111_2222, 0x1_0ff8]);
                    assert_eq!((message, store, signals), (vec![0; 8], [Ok(0x77), Ok(0x1_4000)], 0));
                }
                Some(5) => {
                    assert_eq!(got, [0xff8, 0x1000, 0x3333_4444_0001_0ff8], "what comes before a fault is done");
                    assert_eq!(message[..4], [5, 0, 0x77, 0]);
                    assert_eq!((store, signals), ([Ok(0x4000), Ok(0x77)], 5));
                }
                _ => assert_eq!((got, store), ([0xff8, 0x1000, 0x1_0ff8], [Ok(0x4000), Ok(0x1_4000)])),
            }
        }
    }

    #[test]
    fn a_line_reaches_devices_and_vcpus() {
        with_bus(|bus, io| {
            let a = bus.add(Box::<Bytes>::default());
            let b = bus.add(Box::<Bytes>::default());
            bus.map_memory(0x100, 8, a);
            bus.wire(a, 0, Wire::Device { device: b, input: 5 });
            bus.wire(a, 0, Wire::Vcpu { vcpu: 3, pin: 9 });
            io(bus, 0x100, 1, Some(1));
            assert_eq!(bus.devices().nth(1).unwrap().save()[7], 0x51);
            assert_eq!(bus.for_vcpus, [(3, VcpuSignal::Pin { pin: 9, level: true })]);
        });
    }
}
