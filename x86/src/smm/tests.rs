use super::map::{Field, fields, item};
use crate::model::Vendor;

/// No two fields of a map overlap, all lie in it, and what is to be restored has all of its bits there.
#[test]
fn fields_are_disjoint_and_complete() {
    for map in [Vendor::Intel, Vendor::Amd] {
        let mut all: Vec<Field> = fields(map);
        all.sort_by_key(|f| f.at);
        for pair in all.windows(2) {
            assert!(pair[0].at + u64::from(pair[0].size) <= pair[1].at, "{map:?}: {pair:x?}");
        }
        let first = if map == Vendor::Intel { 0xfc00 } else { 0xfe00 };
        assert!(all[0].at >= first && all.iter().all(|f| f.at + u64::from(f.size) <= 0x1_0000));
        let has_guest = map == Vendor::Amd;
        for i in 0..if has_guest { item::COUNT } else { item::GUEST } {
            assert!(all.iter().any(|f| f.item == i && f.shift == 0), "{map:?}: {i}");
        }
    }
}

/// Places that the manuals name.
#[test]
fn places_of_the_manuals() {
    let place = |map, i| fields(map).iter().find(|f| f.item == i).map(|f| f.at);
    for (i, intel, amd) in [
        (0, 0xff5c, 0xfff8),
        (1, 0xff64, 0xfff0),
        (4, 0xff7c, 0xffd8),
        (7, 0xff94, 0xffc0),
        (8, 0xff54, 0xffb8),
        (15, 0xff1c, 0xff80),
        (item::of_segment(0, item::SELECTOR), 0xffa8, 0xfe00),
        (item::of_segment(7, item::SELECTOR), 0xffc4, 0xfe90),
        (item::SMBASE, 0xfef8, 0xff00),
        (item::REVISION, 0xfefc, 0xfefc),
    ] {
        assert_eq!((place(Vendor::Intel, i), place(Vendor::Amd, i)), (Some(intel), Some(amd)), "{i}");
    }
}
