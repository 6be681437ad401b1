/* The workload of the demo guest: it keeps dirtying memory and appending records to a disk, and would notice one wrong
 * page or one lost or doubled record.
 *
 * A page's content is a function of the seed, its number and its version; versions are kept apart from the pages, so a
 * page that was lost, stale, torn or swapped shows. Records are numbered and chained by a checksum; how many there must
 * be is kept in memory, so a disk that lost a write, or came back older than the memory, shows. After a cold boot the
 * chain goes on from the disk: "kept" says how many records were there, whole. A workload that reads has the disk's files
 * in the page cache: their digest must stay what it was, in the cache and on the disk. A workload with transactions works
 * on a database of the disk as well (database.h).
 *
 * Arguments (novacron.NAME=N): seed; hot and cold, pages that are written and that are not; rate, pages written a second;
 * records, appended a second; skew, how many draws find the page to write, each below the last (1: all pages alike, 3: a
 * fifth of them gets four fifths of the writes); whole=1, a write fills the page with noise instead of changing parts of
 * it; read=1, read all files first; transactions, of the database, a second.
 *
 * On the console: a status line (JSON) each second; "check" verifies everything; "rate N" sets pages dirtied a second;
 * "reboot" does that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "database.h"

enum { PAGE = 4096, SLOTS = 64, SLOT_GROUPS = 10, RECORD = 512, HEADER = 16 };
#define DATA_PATH "/data"
#define LOG_PATH DATA_PATH "/records"
#define DATABASE_PATH DATA_PATH "/accounts.db"

struct record {
    uint64_t number, seed, chain, check;
    uint8_t payload[RECORD - 32];
};

static uint64_t seed = 1;
static uint32_t hot_pages = 12288, cold_pages = 40960;
static uint64_t rate = 10000, records_s = 20, transactions_s;
static unsigned skew = 1, whole, reads;
static uint8_t *hot, *cold;
static uint32_t *versions;
static uint64_t dirtied, record_count, kept, chain, errors, files;
static int log_fd = -1;

static uint64_t mix(uint64_t x) {  /* splitmix64 */
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void fill_noise(uint8_t *page, uint64_t state) {
    uint64_t *word = (uint64_t *)page;
    for (int i = 0; i < PAGE / 8; i++) word[i] = state = mix(state);
}

/* What memory is really made of: noise, text, numbers, repetition and emptiness. */
static void fill_base(uint8_t *page, uint64_t number) {
    static const char *words[16] = {"machine ", "memory ", "the ", "page ", "of ", "a ", "migrate ", "cluster ",
                                    "node\n", "disk ", "and ", "stream ", "block ", "0x00ff ", "return ", "if (x) "};
    uint64_t *word = (uint64_t *)page, state = mix(seed ^ mix(number));
    switch (number % 8) {
        case 0:
        case 1:
            fill_noise(page, state);
            break;
        case 2:
        case 3:
        case 4:
            for (size_t at = 0; at < PAGE;) {
                const char *text = words[(state = mix(state)) % 16];
                size_t length = strlen(text);
                if (length > PAGE - at) length = PAGE - at;
                memcpy(page + at, text, length);
                at += length;
            }
            break;
        case 5:
            for (int i = 0; i < PAGE / 8; i++) word[i] = state % 100000 + (uint64_t)i * 24;
            break;
        case 6:
            memset(page, (int)(number / 8 % 16 + 1), PAGE);
            break;
        default:
            memset(page, 0, PAGE);
            for (int i = 0; i < PAGE / 8; i += 32) word[i] = mix(state + i);
    }
}

static unsigned slot_at(uint64_t number, unsigned slot) {
    return HEADER + (unsigned)(mix(seed ^ number << 8 ^ slot) % ((PAGE - HEADER) / 8)) * 8;
}

static void write_slot(uint8_t *page, uint64_t number, unsigned slot, uint32_t version) {
    uint64_t value = mix(number << 40 ^ (uint64_t)slot << 32 ^ version) & 0xFFFFFFFF;
    memcpy(page + slot_at(number, slot), &value, 8);
}

static void write_header(uint8_t *page, uint64_t number, uint32_t version) {
    uint64_t header[2] = {number << 32 | version, mix(seed ^ number << 32 ^ version)};
    memcpy(page, header, HEADER);
}

static void write_group(uint8_t *page, uint64_t number, uint32_t version) {
    for (unsigned slot = version % SLOT_GROUPS; slot < SLOTS; slot += SLOT_GROUPS) write_slot(page, number, slot, version);
}

static void write_whole(uint8_t *page, uint64_t number, uint32_t version) {
    fill_noise(page, mix(seed ^ mix(number << 32 | version)));
}

/* One version further: the header, and one group of slots or all of the page. */
static void touch(uint32_t number) {
    uint8_t *page = hot + (size_t)number * PAGE;
    uint32_t version = ++versions[number];
    (whole ? write_whole : write_group)(page, number, version);
    write_header(page, number, version);
    dirtied++;
}

static uint32_t draw(uint64_t *state) {
    uint64_t below = hot_pages;
    for (unsigned i = 0; i < skew; i++) below = (*state = mix(*state)) % below + 1;
    return below - 1;
}

/* The page as it must be: slots in the order in which they were written, because two may lie on one place. */
static void expected(uint8_t *page, uint32_t number) {
    uint32_t version = versions[number];
    if (whole && version) {
        write_whole(page, number, version);
        write_header(page, number, version);
        return;
    }
    fill_base(page, number);
    uint32_t first = version > SLOT_GROUPS ? version - SLOT_GROUPS + 1 : 1;
    /* Older writes than the last round lie under those of the last round wherever they share a place; places are
     * fixed a slot, so only the last round counts. */
    for (uint32_t v = first; v <= version; v++) write_group(page, number, v);
    write_header(page, number, version);
}

static void build_record(struct record *record, uint64_t number, uint64_t previous) {
    record->number = number;
    record->seed = seed;
    record->chain = previous;
    for (size_t i = 0; i < sizeof record->payload; i += 8) {
        uint64_t value = mix(seed ^ number * 64 ^ i);
        memcpy(record->payload + i, &value, 8);
    }
    record->check = mix(previous ^ mix(number));
}

static void append_record(void) {
    struct record record;
    build_record(&record, record_count, chain);
    if (pwrite(log_fd, &record, RECORD, (off_t)record_count * RECORD) != RECORD || fsync(log_fd)) {
        errors++;
        printf("{\"error\":\"append\",\"errno\":%d}\n", errno);
        return;
    }
    chain = record.check;
    record_count++;
}

static uint64_t check_pages(void) {
    static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
    uint64_t wrong = 0;
    for (uint32_t n = 0; n < hot_pages; n++) {
        expected(page, n);
        wrong += memcmp(page, hot + (size_t)n * PAGE, PAGE) != 0;
    }
    for (uint32_t n = 0; n < cold_pages; n++) {
        fill_base(page, n);
        wrong += memcmp(page, cold + (size_t)n * PAGE, PAGE) != 0;
    }
    return wrong;
}

/* Read from the disk itself, not from the page cache. */
static void check_records(uint64_t *lost, uint64_t *doubled, uint64_t *wrong) {
    static uint8_t buffer[128 * RECORD] __attribute__((aligned(PAGE)));
    uint64_t number = 0, previous = 0;
    int fd = open(LOG_PATH, O_RDONLY | O_DIRECT);
    *lost = *doubled = *wrong = 0;
    for (off_t at = 0; fd >= 0;) {
        ssize_t got = pread(fd, buffer, sizeof buffer, at);
        if (got <= 0) break;
        for (ssize_t i = 0; i + RECORD <= got; i += RECORD) {
            struct record *found = (struct record *)(buffer + i), wanted;
            if (number == record_count) {
                ++*doubled;
                continue;
            }
            build_record(&wanted, number, previous);
            *wrong += memcmp(found, &wanted, RECORD) != 0;
            previous = wanted.check;
            number++;
        }
        at += got;
    }
    if (fd >= 0) close(fd);
    *lost = record_count - number;
}

static uint64_t digest;
static int digest_flags;

static int add_file(const char *path, const struct stat *found, int type, struct FTW *place) {
    static uint64_t buffer[8192] __attribute__((aligned(PAGE)));
    (void)found, (void)place;
    if (type != FTW_F || !strcmp(path, LOG_PATH)) return 0;
    int fd = open(path, O_RDONLY | digest_flags);
    uint64_t sum = 0;
    for (ssize_t got; fd >= 0 && (got = read(fd, buffer, sizeof buffer)) > 0;) {
        memset((uint8_t *)buffer + got, 0, sizeof buffer - got);
        for (ssize_t i = 0; i * 8 < got; i++) {
            sum = (sum ^ buffer[i]) * 0x9E3779B97F4A7C15ull;
            sum ^= sum >> 29;
        }
    }
    if (fd >= 0) close(fd);
    digest += mix(sum);
    return 0;
}

/* Of all files but the records; with O_DIRECT of what the disk holds, else of what the page cache does. */
static uint64_t digest_files(int flags) {
    digest = 0;
    digest_flags = flags;
    if (nftw(DATA_PATH, add_file, 16, FTW_PHYS)) errors++;
    return digest;
}

static unsigned check_files(void) {
    return reads ? (digest_files(0) != files) + (digest_files(O_DIRECT) != files) : 0;
}

/* After a cold boot: go on behind the records of the life before; one that is not whole is an error, and is cut off. */
static void take_up_records(void) {
    struct record found, wanted;
    while (pread(log_fd, &found, RECORD, (off_t)record_count * RECORD) == RECORD) {
        build_record(&wanted, record_count, chain);
        if (memcmp(&found, &wanted, RECORD)) break;
        chain = wanted.check;
        record_count++;
    }
    kept = record_count;
    off_t end = (off_t)record_count * RECORD;
    if (lseek(log_fd, 0, SEEK_END) != end) errors++;
    if (ftruncate(log_fd, end)) errors++;
}

static void check(const char *tag) {
    uint64_t lost, doubled, wrong, pages = check_pages();
    unsigned wrong_digests = check_files();
    uint64_t wrong_rows = transactions_s ? database_check() : 0;
    check_records(&lost, &doubled, &wrong);
    errors += pages + lost + doubled + wrong + wrong_digests + wrong_rows;
    printf("{\"check\":\"%s\",\"errors\":%llu,\"pages\":%u,\"wrong_pages\":%llu,\"records\":%llu,\"lost\":%llu,"
           "\"doubled\":%llu,\"wrong_records\":%llu,\"wrong_digests\":%u,\"wrong_rows\":%llu}\n",
           tag, (unsigned long long)errors, hot_pages + cold_pages, (unsigned long long)pages,
           (unsigned long long)record_count, (unsigned long long)lost, (unsigned long long)doubled,
           (unsigned long long)wrong, wrong_digests, (unsigned long long)wrong_rows);
}

static void obey(char *line) {
    if (!strncmp(line, "check", 5)) {
        check(line[5] == ' ' ? line + 6 : "");
    } else if (!strncmp(line, "rate ", 5)) {
        rate = strtoull(line + 5, NULL, 10);
        printf("{\"rate\":%llu}\n", (unsigned long long)rate);
    } else if (!strcmp(line, "reboot")) {
        sync();
        reboot(RB_AUTOBOOT);
    }
}

static void listen_to_console(void) {
    static char line[128];
    static size_t length;
    struct pollfd in = {.fd = 0, .events = POLLIN};
    while (poll(&in, 1, 0) == 1 && in.revents & POLLIN) {
        char byte;
        if (read(0, &byte, 1) != 1) return;
        if (byte == '\n' || byte == '\r') {
            line[length] = 0;
            if (length) obey(line);
            length = 0;
        } else if (length < sizeof line - 1) {
            line[length++] = byte;
        }
    }
}

static void option(const char *argument) {
    unsigned long long value;
    if (sscanf(argument, "novacron.seed=%llu", &value) == 1) seed = value;
    if (sscanf(argument, "novacron.hot=%llu", &value) == 1) hot_pages = value;
    if (sscanf(argument, "novacron.cold=%llu", &value) == 1) cold_pages = value;
    if (sscanf(argument, "novacron.rate=%llu", &value) == 1) rate = value;
    if (sscanf(argument, "novacron.records=%llu", &value) == 1) records_s = value;
    if (sscanf(argument, "novacron.skew=%llu", &value) == 1) skew = value;
    if (sscanf(argument, "novacron.whole=%llu", &value) == 1) whole = value;
    if (sscanf(argument, "novacron.read=%llu", &value) == 1) reads = value;
    if (sscanf(argument, "novacron.transactions=%llu", &value) == 1) transactions_s = value;
}

static void *memory(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        printf("{\"error\":\"memory\",\"bytes\":%zu}\n", size);
        exit(1);
    }
    return at;
}

static void prepare(void) {
    struct termios raw;
    if (!tcgetattr(0, &raw)) {
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST | ONLCR;
        tcsetattr(0, TCSANOW, &raw);
    }
    hot = memory((size_t)hot_pages * PAGE);
    cold = memory((size_t)cold_pages * PAGE);
    versions = memory(hot_pages * sizeof *versions);
    for (uint32_t n = 0; n < hot_pages; n++) {
        fill_base(hot + (size_t)n * PAGE, n);
        write_header(hot + (size_t)n * PAGE, n, 0);
    }
    for (uint32_t n = 0; n < cold_pages; n++) fill_base(cold + (size_t)n * PAGE, n);
    log_fd = open(LOG_PATH, O_RDWR | O_CREAT, 0600);
    if (log_fd < 0) printf("{\"error\":\"log\",\"errno\":%d}\n", errno);
    else take_up_records();
    if (reads) files = digest_files(0);
    if (transactions_s && database_open(DATABASE_PATH, seed)) errors++;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < count; i++) option(arguments[i]);
    prepare();
    printf("{\"ready\":true,\"hot_pages\":%u,\"cold_pages\":%u,\"rate\":%llu,\"seed\":%llu}\n", hot_pages, cold_pages,
           (unsigned long long)rate, (unsigned long long)seed);
    uint64_t begin = now_us(), paced = begin, owed = 0, said = begin, appended = begin, state = mix(seed);
    uint64_t transferred = begin;
    while (1) {
        uint64_t now = now_us();
        owed += (now - paced) * rate / 1000000;
        if ((now - paced) * rate >= 1000000) paced = now;
        if (owed > rate / 5) owed = rate / 5;  /* after a pause: no storm to catch up */
        for (; owed; owed--) touch(draw(&state));
        if (log_fd >= 0 && records_s && now - appended >= 1000000 / records_s) {
            append_record();
            appended = now;
        }
        if (transactions_s && now - transferred >= 1000000 / transactions_s) {
            if (database_transfer()) errors++;
            transferred = now;
        }
        listen_to_console();
        if (now - said >= 1000000) {
            printf("{\"t\":%llu,\"pages_dirtied\":%llu,\"records\":%llu,\"kept\":%llu,\"transactions\":%llu,"
                   "\"errors\":%llu}\n",
                   (unsigned long long)(now - begin) / 1000, (unsigned long long)dirtied,
                   (unsigned long long)record_count, (unsigned long long)kept,
                   (unsigned long long)database_transactions(), (unsigned long long)errors);
            said = now;
        }
        usleep(5000);
    }
}
