import java.io.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.nio.file.attribute.*;
import java.util.*;
import java.util.concurrent.Future;
import java.util.stream.*;
import java.util.zip.*;

/** Channels, mapped buffers, locks, walks and archives of java.nio. */
public class Nio {
    static void channels() throws IOException {
        Path path = Path.of("channel.bin");
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(8192);
            for (int i = 0; i < 20; i++) {
                buffer.clear();
                while (buffer.hasRemaining()) buffer.putInt(i * 31);
                buffer.flip();
                channel.write(buffer);
            }
            channel.write(ByteBuffer.wrap("here".getBytes()), 5000);
            channel.write(new ByteBuffer[] {ByteBuffer.wrap(new byte[10]), ByteBuffer.wrap("tail".getBytes())});
            try (FileLock lock = channel.lock(0, 100, false)) {
                System.out.println("locked " + lock.isValid() + " " + channel.size() + " " + channel.position());
            }
            MappedByteBuffer map = channel.map(FileChannel.MapMode.READ_WRITE, 4096, 65536);
            map.order(ByteOrder.LITTLE_ENDIAN);
            for (int i = 0; i < 65536; i += 8) map.putLong(i, map.getLong(i) + i);
            map.force();
            MappedByteBuffer copy = channel.map(FileChannel.MapMode.PRIVATE, 0, 4096);
            copy.put(0, (byte) 99);
            MappedByteBuffer grown = channel.map(FileChannel.MapMode.READ_WRITE, channel.size(), 10000);
            grown.put(9999, (byte) 7);
            channel.truncate(170000);
            buffer.clear();
            System.out.println(channel.read(buffer, 4090) + " " + copy.get(0) + " " + channel.size());
            try (FileChannel out = FileChannel.open(Path.of("transferred.bin"), StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
                System.out.println(channel.transferTo(100, 50000, out) + " " + out.transferFrom(channel.position(0), out.size(), 10));
            }
        }
    }

    static void asynchronous() throws Exception {
        try (AsynchronousFileChannel channel = AsynchronousFileChannel.open(Path.of("async.bin"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            List<Future<Integer>> writes = new ArrayList<>();
            for (int i = 0; i < 16; i++) writes.add(channel.write(ByteBuffer.wrap(new byte[] {(byte) i, 1, 2, 3}), i * 1000));
            int sum = 0;
            for (Future<Integer> write : writes) sum += write.get();
            ByteBuffer back = ByteBuffer.allocate(4);
            System.out.println(sum + " " + channel.read(back, 3000).get() + " " + back.get(0));
        }
    }

    static void names() throws IOException {
        Files.createDirectories(Path.of("tree/a/b"));
        Files.writeString(Path.of("tree/a/b/text"), "one\ntwo\n");
        Files.copy(Path.of("tree/a/b/text"), Path.of("tree/copy"), StandardCopyOption.COPY_ATTRIBUTES);
        Files.move(Path.of("tree/copy"), Path.of("tree/moved"), StandardCopyOption.ATOMIC_MOVE);
        Files.createSymbolicLink(Path.of("tree/link"), Path.of("moved"));
        Files.createLink(Path.of("tree/hard"), Path.of("tree/moved"));
        Files.setPosixFilePermissions(Path.of("tree/moved"), PosixFilePermissions.fromString("rw-r-----"));
        UserDefinedFileAttributeView view = Files.getFileAttributeView(Path.of("tree/moved"), UserDefinedFileAttributeView.class);
        view.write("origin", ByteBuffer.wrap("lab".getBytes()));
        System.out.println(view.list() + " " + view.size("origin"));
        Path temporary = Files.createTempFile("t", ".tmp");
        System.out.println(temporary.getParent().startsWith(Path.of("").toAbsolutePath()));
        Files.delete(temporary);
        Files.setLastModifiedTime(Path.of("tree/a"), FileTime.fromMillis(1_000_000_000_123L));
        System.out.println(Files.getLastModifiedTime(Path.of("tree/a")) + " " + Files.isSameFile(Path.of("tree/hard"), Path.of("tree/link")));
        PosixFileAttributes attributes = Files.readAttributes(Path.of("tree/hard"), PosixFileAttributes.class);
        System.out.println(attributes.size() + " " + PosixFilePermissions.toString(attributes.permissions()) + " " + Files.getAttribute(Path.of("tree/hard"), "unix:nlink"));
        try (Stream<Path> all = Files.walk(Path.of("tree"))) {
            System.out.println(all.map(Path::toString).sorted().collect(Collectors.joining(" ")));
        }
        try {
            Files.delete(Path.of("tree/a"));
        } catch (DirectoryNotEmptyException error) {
            System.out.println("not empty: " + error.getMessage());
        }
        try {
            Files.createFile(Path.of("tree/moved"));
        } catch (FileAlreadyExistsException error) {
            System.out.println("exists: " + error.getMessage());
        }
    }

    static void files() throws IOException {
        try (RandomAccessFile file = new RandomAccessFile("random.bin", "rw")) {
            file.setLength(10000);
            file.seek(5000);
            file.writeUTF("middle");
            file.writeDouble(3.5);
            file.seek(5000);
            System.out.println(file.readUTF() + " " + file.readDouble() + " " + file.getFilePointer());
        }
        try (ObjectOutputStream out = new ObjectOutputStream(new BufferedOutputStream(new FileOutputStream("objects.ser")))) {
            out.writeObject(new ArrayList<>(List.of("a", 1, 2.5)));
        }
        try (ObjectInputStream in = new ObjectInputStream(new FileInputStream("objects.ser"))) {
            System.out.println(in.readObject());
        } catch (ClassNotFoundException error) {
            throw new IOException(error);
        }
        try (GZIPOutputStream out = new GZIPOutputStream(new FileOutputStream("lines.gz")); BufferedReader in = Files.newBufferedReader(Path.of("lines"))) {
            for (String line; (line = in.readLine()) != null;) out.write((line + "!\n").getBytes(StandardCharsets.UTF_8));
        }
        try (ZipOutputStream zip = new ZipOutputStream(new FileOutputStream("files.zip"))) {
            ZipEntry entry = new ZipEntry("lines");
            entry.setTime(946684800000L);
            zip.putNextEntry(entry);
            Files.copy(Path.of("lines"), zip);
        }
        try (ZipFile zip = new ZipFile("files.zip")) {
            System.out.println(zip.size() + " " + zip.getEntry("lines").getSize());
        }
        try (FileSystem zip = FileSystems.newFileSystem(Path.of("files.zip"))) {
            System.out.println(Files.readAllLines(zip.getPath("lines")).size());
        }
        try (Scanner scanner = new Scanner(new File("lines")); PrintWriter out = new PrintWriter("last")) {
            String last = "";
            while (scanner.hasNextLine()) last = scanner.nextLine();
            out.println(last);
        }
    }

    public static void main(String[] arguments) throws Exception {
        channels();
        asynchronous();
        names();
        files();
    }
}
