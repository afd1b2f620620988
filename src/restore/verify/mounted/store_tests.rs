use proptest::prelude::*;

use super::*;

const BLOCK: u64 = 512 << 10;

/// Two volumes of four blocks, and memory for so many bytes.
fn store(limit: u64) -> Store {
    Store::new(&[(4 * BLOCK, BLOCK), (4 * BLOCK, BLOCK)], limit)
}

fn block(byte: u8) -> Option<Vec<u8>> {
    Some(vec![byte; BLOCK as usize])
}

#[test]
fn what_is_missing_is_named_and_what_was_never_written_is_zero() {
    let mut store = store(1 << 30);
    assert_eq!(store.read(0, BLOCK - 10, 20), Err(Not::Missing(vec![0, 1])));
    store.put(0, 0, block(7));
    assert_eq!(store.read(0, BLOCK - 10, 20), Err(Not::Missing(vec![1])));
    store.put(0, 1, None);
    assert_eq!(store.read(0, BLOCK - 10, 20).unwrap(), [[7; 10], [0; 10]].concat());
    assert_eq!(store.read(1, 0, 1), Err(Not::Missing(vec![0])), "the other volume has its own");
    store.put(0, 3, block(9));
    assert_eq!(store.read(0, 4 * BLOCK - 5, 100).unwrap(), [9; 5], "no more than there is");
    assert!(store.read(0, u64::MAX, 100).unwrap().is_empty(), "nothing behind the end");
}

#[test]
fn what_is_written_lies_over_what_was_fetched() {
    let mut store = store(1 << 30);
    store.write(0, PAGE, &[1; PAGE as usize]).unwrap();
    assert_eq!(store.read(0, PAGE, PAGE).unwrap(), [1; PAGE as usize], "a whole page needs no block");
    assert_eq!(store.write(0, 10, &[2; 5]), Err(Not::Missing(vec![0])), "the rest of a page does");
    store.put(0, 0, block(7));
    store.write(0, 10, &[2; 5]).unwrap();
    assert_eq!(store.read(0, 8, 9).unwrap(), [7, 7, 2, 2, 2, 2, 2, 7, 7]);
    assert_eq!(store.read(0, PAGE - 1, 2).unwrap(), [7, 1], "fetching it changes nothing of it");
    assert_eq!(store.write(0, 4 * BLOCK - 1, &[0; 2]), Err(Not::Beyond));
}

#[test]
fn no_more_is_written_than_the_limit_and_blocks_make_room() {
    let mut small = store(2 * PAGE);
    small.write(0, 0, &[1; 2 * PAGE as usize]).unwrap();
    assert_eq!(small.write(0, 2 * PAGE, &[1]), Err(Not::Full));
    small.write(0, 1, &[3; PAGE as usize]).unwrap();
    assert_eq!(small.read(0, 0, 2).unwrap(), [1, 3], "what is there can be written again");

    let many = 2 * ALWAYS;
    let mut cached = Store::new(&[(many * BLOCK, BLOCK)], PAGE);
    for index in 0..ALWAYS as u32 + 1 {
        cached.put(0, index, block(1));
        assert!(cached.read(0, 0, 1).is_ok(), "what was used a moment ago stays");
    }
    let kept = (0..many as u32).filter(|n| cached.has(0, *n)).count() as u64;
    assert_eq!(kept, ALWAYS);
    assert!(cached.has(0, 0) && !cached.has(0, 1), "the one that was used least lately went");
}

proptest! {
    /// As a plain array of bytes does it.
    #[test]
    fn it_reads_what_was_written(steps in proptest::collection::vec((0_u64..3 * BLOCK, 1_usize..20_000, any::<u8>(), any::<bool>()), 1..20)) {
        let mut store = store(1 << 30);
        for index in 0..3 {
            store.put(0, index, block(index as u8));
        }
        store.put(0, 3, None);
        let mut plain: Vec<u8> = (0..3_u8).flat_map(|n| vec![n; BLOCK as usize]).chain(vec![0; BLOCK as usize]).collect();
        for (at, length, byte, write) in steps {
            let range = at as usize..at as usize + length;
            if write {
                store.write(0, at, &vec![byte; length]).unwrap();
                plain[range].fill(byte);
            } else {
                prop_assert_eq!(&store.read(0, at, length as u64).unwrap()[..], &plain[range]);
            }
        }
    }
}
