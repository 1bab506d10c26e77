use super::*;

fn write_synced(files: &dyn Files, name: &str, bytes: &[u8]) {
    let file = files.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_data().unwrap();
    files.sync_folder("wal").unwrap();
}

fn read(files: &dyn Files, name: &str) -> io::Result<Vec<u8>> {
    let file = files.open(name)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn what_was_synced_survives_and_the_rest_goes() {
    let disk = SimDisk::new();
    let files = disk.mount();
    write_synced(&*files, "wal/1", b"kept");
    files.open("wal/1").unwrap().write_at(4, b"lost").unwrap();
    assert_eq!(read(&*files, "wal/1").unwrap(), b"keptlost");
    disk.crash(Survival::Pages(0), &mut Dice::new(1));
    assert_eq!(read(&*disk.mount(), "wal/1").unwrap(), b"kept");
}

#[test]
fn a_killed_process_leaves_everything_that_it_wrote() {
    let disk = SimDisk::new();
    disk.mount().create("wal/1").unwrap().write_at(0, b"unsynced").unwrap();
    disk.crash(Survival::Everything, &mut Dice::new(1));
    assert_eq!(read(&*disk.mount(), "wal/1").unwrap(), b"unsynced");
}

#[test]
fn a_file_whose_folder_was_not_synced_may_vanish() {
    let disk = SimDisk::new();
    let file = disk.mount().create("wal/1").unwrap();
    file.write_at(0, b"data").unwrap();
    file.sync_data().unwrap();
    disk.crash(Survival::Pages(0), &mut Dice::new(1));
    let gone = read(&*disk.mount(), "wal/1").map_err(|error| error.kind());
    assert_eq!(gone, Err(io::ErrorKind::NotFound));
}

#[test]
fn an_unsynced_removal_may_come_back() {
    let disk = SimDisk::new();
    write_synced(&*disk.mount(), "wal/1", b"old");
    disk.mount().remove("wal/1").unwrap();
    assert!(disk.mount().list("wal").unwrap().is_empty());
    disk.crash(Survival::Pages(0), &mut Dice::new(1));
    assert_eq!(disk.mount().list("wal").unwrap(), ["1"]);
}

#[test]
fn a_power_loss_keeps_some_pages_of_a_large_write_and_loses_others() {
    let mixed = (0..20).any(|seed| {
        let disk = SimDisk::new();
        write_synced(&*disk.mount(), "wal/1", &[0; 16 * 4096]);
        disk.mount().open("wal/1").unwrap().write_at(0, &[1; 16 * 4096]).unwrap();
        disk.crash(Survival::Pages(500), &mut Dice::new(seed));
        let bytes = read(&*disk.mount(), "wal/1").unwrap();
        bytes.chunks(4096).any(|page| page[0] == 0) && bytes.chunks(4096).any(|page| page[0] == 1)
    });
    assert!(mixed, "no seed of 20 kept a part of the pages");
}

#[test]
fn an_earlier_life_can_no_longer_write() {
    let disk = SimDisk::new();
    let file = disk.mount().create("wal/1").unwrap();
    disk.crash(Survival::Everything, &mut Dice::new(1));
    assert!(file.write_at(0, b"late").is_err());
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept() {
    let disk = SimDisk::new();
    write_synced(&*disk.mount(), "wal/1", b"kept");
    let file = disk.mount().open("wal/1").unwrap();
    file.write_at(4, b"lost").unwrap();
    disk.set_faults(|faults| faults.next_sync_fails = true);
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok(), "a retried sync succeeds and proves nothing");
    disk.crash(Survival::Pages(0), &mut Dice::new(1));
    assert_eq!(read(&*disk.mount(), "wal/1").unwrap(), b"kept");
}

#[test]
fn a_full_disk_refuses_growth_and_still_takes_overwrites() {
    let disk = SimDisk::new();
    write_synced(&*disk.mount(), "wal/1", b"1234");
    disk.set_faults(|faults| faults.full = true);
    let file = disk.mount().open("wal/1").unwrap();
    assert_eq!(file.write_at(2, b"long").map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
    assert!(file.write_at(0, b"4321").is_ok());
    assert_eq!(disk.mount().free_bytes().unwrap(), 0);
}
