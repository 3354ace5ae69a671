//! Files as Rust's standard library does them.
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::thread;

fn main() -> io::Result<()> {
    let sum: u64 = BufReader::new(File::open("numbers")?).lines().map(|line| line.unwrap().parse::<u64>().unwrap()).sum();
    println!("sum {sum}");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open("data.bin")?;
    file.write_all(&[1; 10_000])?;
    file.seek(SeekFrom::Start(5000))?;
    file.write_all(b"middle")?;
    file.write_all_at(b"at", 20)?;
    let mut back = [0; 4];
    file.read_exact_at(&mut back, 18)?;
    file.set_len(8000)?;
    file.sync_all()?;
    println!("{back:?} {} {}", file.stream_position()?, file.metadata()?.len());
    println!("{}", fs::copy("data.bin", "copy.bin")?);
    let mut reader = File::open("copy.bin")?;
    let mut twice = BufWriter::new(File::create("twice.bin")?);
    println!("{}", io::copy(&mut reader, &mut twice)?);
    reader.rewind()?;
    println!("{}", io::copy(&mut reader, &mut twice)?);
    drop(twice);
    fs::create_dir_all("tree/a/b")?;
    fs::write("tree/a/text", "words")?;
    fs::hard_link("tree/a/text", "tree/hard")?;
    symlink("a/text", "tree/link")?;
    fs::rename("tree/a/text", "tree/a/b/moved")?;
    fs::set_permissions("tree/hard", fs::Permissions::from_mode(0o640))?;
    println!("{:?} {:?}", fs::read_link("tree/link")?, fs::metadata("tree/link").map_err(|error| error.kind()));
    let mut names: Vec<_> = fs::read_dir("tree")?.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    println!("{names:?} {}", fs::canonicalize("tree/a/b/../b/moved")?.ends_with("tree/a/b/moved"));
    fs::remove_dir_all("tree/a")?;
    thread::scope(|scope| {
        for part in 0..4u64 {
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).create(true).truncate(false).open("parts.bin").unwrap();
                for i in 0..100 {
                    file.write_all_at(&[part as u8; 64], (i * 4 + part) * 64).unwrap();
                }
            });
        }
    });
    let mut all = Vec::new();
    File::open("parts.bin")?.read_to_end(&mut all)?;
    println!("{}", all.len());
    Ok(())
}
