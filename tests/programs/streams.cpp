// C++ streams as programs use them: `make FILE`, then `sum FILE` reads it with
// another program still writing, and `edit FILE` changes it in place.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <unistd.h>

static int make(const char *path)
{
    std::ofstream out(path);
    for (int i = 0; i < 20000; i++) {
        out << "line " << i << ' ' << i * 2.5 << '\n';
        if (i % 4000 == 0) {
            out.flush();
            usleep(2000);
        }
    }
    out.close();
    return out ? 0 : 1;
}

static int sum(const char *path)
{
    std::ifstream in(path);
    std::string word;
    long lines = 0, total = 0;
    double halves = 0;
    int number;
    double value;
    while (in >> word >> number >> value) {
        lines++;
        total += number;
        halves += value;
    }
    std::cout << lines << ' ' << total << ' ' << static_cast<long>(halves) << std::endl;
    return in.eof() ? 0 : 1;
}

static int edit(const char *path)
{
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    std::string first, second;
    std::getline(file, first);
    const auto here = file.tellg();
    std::getline(file, second);
    file.seekp(here);
    file << "LINE";
    file.seekg(0, std::ios::end);
    std::cout << first << '|' << second << '|' << file.tellg() << std::endl;
    file.seekp(0, std::ios::end);
    file << "the end\n";
    return file ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    const std::string what = argv[1];
    if (what == "make") return make(argv[2]);
    if (what == "sum") return sum(argv[2]);
    return edit(argv[2]);
}
