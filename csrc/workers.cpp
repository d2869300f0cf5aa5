#include "workers.hpp"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace igonnx {

namespace {

constexpr int most_lanes = 8;

int processors() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

}  // namespace

Workers shared_out(int threads) {
  const int cores = physical_cores();
  const int wanted = threads > 0 ? threads : cores;
  const int lanes = std::min(wanted, most_lanes);
  const int each = wanted / lanes;
  const int at_once = threads > 0 ? std::max(lanes, cores / each) : lanes;
  return {each, static_cast<std::size_t>(lanes), static_cast<std::size_t>(at_once)};
}

int physical_cores() {
#if defined(__linux__)
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof affinity, &affinity) != 0) return processors();
  std::set<std::string> cores;  // by the processors that share each
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &affinity)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(i) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) return CPU_COUNT(&affinity);
    cores.insert(siblings);
  }
  return std::max(1, static_cast<int>(cores.size()));
#else
  return processors();
#endif
}

}  // namespace igonnx
