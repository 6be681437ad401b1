// A link between two TUN devices: IP packets go from one to the other no faster than a rate, after a delay with jitter,
// and some are lost. Started by novacron.launch.lab with both devices open; ends with its parent.
//
//   link_relay TUN_A TUN_B COUNTERS RATE_BYTES_S DELAY_NS JITTER_NS LOSS_PPM QUEUE_BYTES SEED
//
// The three first arguments are file descriptors. COUNTERS is a file of six 64-bit integers, mapped and kept current:
// bytes, packets and drops from A to B, then from B to A. Each direction has its own queue, first in, first out; a packet
// that finds it full is dropped, as at a router. A rate counts bytes of IP packets.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <csignal>
#include <deque>
#include <fcntl.h>
#include <poll.h>
#include <random>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr size_t kLargestPacket = 65536;
constexpr int kBatch = 64;  // packets taken from one device before the other has its turn

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * kSecond + t.tv_nsec;
}

struct Settings {
    int64_t rate, delay, jitter, loss_ppm, queue_bytes;
};

struct Packet {
    int64_t due;
    std::vector<uint8_t> data;
};

class Direction {
  public:
    Direction(int from, int to, volatile uint64_t* counters, const Settings& settings, uint64_t seed)
        : from_(from), to_(to), counters_(counters), settings_(settings), random_(seed) {}

    int from() const { return from_; }

    // Nanoseconds until the next packet is due; -1 when none waits.
    int64_t wait(int64_t now) const { return waiting_.empty() ? -1 : std::max<int64_t>(0, waiting_.front().due - now); }

    void take(int64_t now) {
        for (int i = 0; i < kBatch; i++) {
            ssize_t size = read(from_, buffer_, sizeof buffer_);
            if (size <= 0) return;
            admit(now, size);
        }
    }

    void deliver(int64_t now) {
        while (!waiting_.empty() && waiting_.front().due <= now) {
            const auto& data = waiting_.front().data;
            if (write(to_, data.data(), data.size()) == static_cast<ssize_t>(data.size())) {
                counters_[0] = counters_[0] + data.size();
                counters_[1] = counters_[1] + 1;
            } else {
                counters_[2] = counters_[2] + 1;
            }
            waiting_.pop_front();
        }
    }

  private:
    void admit(int64_t now, size_t size) {
        int64_t backlog_ns = std::max<int64_t>(0, free_at_ - now);
        bool full = static_cast<double>(backlog_ns) * settings_.rate / kSecond + size > settings_.queue_bytes;
        bool lost = settings_.loss_ppm && static_cast<int64_t>(random_() % 1'000'000) < settings_.loss_ppm;
        if (full || lost) {
            counters_[2] = counters_[2] + 1;
            return;
        }
        free_at_ = std::max(now, free_at_) + static_cast<int64_t>(size) * kSecond / settings_.rate;
        int64_t jitter = settings_.jitter ? static_cast<int64_t>(random_() % (2 * settings_.jitter + 1)) - settings_.jitter : 0;
        int64_t due = std::max(last_due_, free_at_ + std::max<int64_t>(0, settings_.delay + jitter));  // never overtakes
        last_due_ = due;
        waiting_.push_back({due, std::vector<uint8_t>(buffer_, buffer_ + size)});
    }

    int from_, to_;
    volatile uint64_t* counters_;
    Settings settings_;
    std::mt19937_64 random_;
    std::deque<Packet> waiting_;
    int64_t free_at_ = 0, last_due_ = 0;
    uint8_t buffer_[kLargestPacket];
};

}  // namespace

int main(int count, char** words) {
    if (count != 10) {
        fprintf(stderr, "link_relay is started by novacron\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    auto number = [&](int i) { return strtoll(words[i], nullptr, 10); };
    int a = static_cast<int>(number(1)), b = static_cast<int>(number(2));
    void* mapped = mmap(nullptr, 6 * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, static_cast<int>(number(3)), 0);
    if (mapped == MAP_FAILED) return 1;
    auto* counters = static_cast<volatile uint64_t*>(mapped);
    Settings settings{number(4), number(5), number(6), number(7), number(8)};
    for (int fd : {a, b}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    static Direction forth(a, b, counters, settings, number(9)), back(b, a, counters + 3, settings, number(9) + 1);
    while (true) {
        int64_t now = now_ns(), wait = -1;
        for (const Direction* d : {&forth, &back}) {
            int64_t w = d->wait(now);
            if (w >= 0 && (wait < 0 || w < wait)) wait = w;
        }
        pollfd fds[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
        timespec timeout{wait / kSecond, wait % kSecond};
        if (ppoll(fds, 2, wait < 0 ? nullptr : &timeout, nullptr) < 0 && errno != EINTR) return 1;
        if ((fds[0].revents | fds[1].revents) & (POLLERR | POLLNVAL)) return 0;  // a device has gone
        now = now_ns();
        if (fds[0].revents & POLLIN) forth.take(now);
        if (fds[1].revents & POLLIN) back.take(now);
        now = now_ns();
        forth.deliver(now);
        back.deliver(now);
    }
}
