// NumPy's .npy files of float32 arrays, as numpy.save writes them on a little-endian machine
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Npy {
  std::vector<std::int64_t> shape;
  std::vector<float> values;  // row-major
};

inline Npy load_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const auto refuse = [&path](const char* why) -> void {
    throw std::runtime_error(path + ": " + why);
  };
  if (!file) refuse("cannot be opened");
  unsigned char start[12] = {};  // magic, version, and the length of the header in 2 or 4 bytes
  file.read(reinterpret_cast<char*>(start), 10);
  if (std::string(start, start + 6) != "\x93NUMPY") refuse("is no .npy file");
  std::size_t length = start[8] | start[9] << 8;
  if (start[6] > 1) {
    file.read(reinterpret_cast<char*>(start + 10), 2);
    length |= static_cast<std::size_t>(start[10]) << 16 | static_cast<std::size_t>(start[11]) << 24;
  }
  std::string header(length, ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  if (!file) refuse("ends too early");
  if (header.find("'<f4'") == header.npos) refuse("is not of float32");
  if (header.find("'fortran_order': False") == header.npos) refuse("is not in C order");

  Npy array;
  std::size_t count = 1;
  const std::size_t open = header.find('(');
  if (open == header.npos) refuse("has no shape");
  for (const char* text = header.c_str() + open + 1; *text != ')' && *text != '\0';) {
    char* end = nullptr;
    array.shape.push_back(std::strtoll(text, &end, 10));
    if (end == text) refuse("has no shape");
    count *= static_cast<std::size_t>(array.shape.back());
    for (text = end; *text == ',' || *text == ' ';) ++text;
  }
  array.values.resize(count);
  file.read(reinterpret_cast<char*>(array.values.data()),
            static_cast<std::streamsize>(count * sizeof(float)));
  if (!file) refuse("ends too early");
  return array;
}

inline void save_npy(const std::string& path, const Npy& array) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (std::int64_t size : array.shape) header += std::to_string(size) + ",";
  header += "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');  // so that the data begin at a multiple of 64
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.put(static_cast<char>(header.size() & 0xff)).put(static_cast<char>(header.size() >> 8));
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(reinterpret_cast<const char*>(array.values.data()),
             static_cast<std::streamsize>(array.values.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}
