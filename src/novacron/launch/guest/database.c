#include "database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRANSFERS = 4, CACHE_KIB = 32768, BUSY_MS = 10000 };

static sqlite3 *db;
static sqlite3_stmt *begin, *commit, *withdraw, *deposit, *record;
static const char *file;
static uint64_t state, accounts, transfers, transactions;
static int64_t total;

static uint64_t draw(void) {  /* splitmix64 */
    uint64_t x = state += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

/* A fifth of the accounts has four fifths of the business. */
static uint64_t draw_account(void) {
    uint64_t below = accounts;
    for (int i = 0; i < 3; i++) below = draw() % below + 1;
    return below;
}

static int failed(const char *what) {
    printf("{\"error\":\"%s\",\"sqlite\":\"%s\"}\n", what, db ? sqlite3_errmsg(db) : "no memory");
    return -1;
}

static int64_t number(const char *sql) {
    sqlite3_stmt *one;
    int64_t value = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &one, NULL) == SQLITE_OK && sqlite3_step(one) == SQLITE_ROW)
        value = sqlite3_column_int64(one, 0);
    sqlite3_finalize(one);
    return value;
}

static int connect_file(void) {
    static char settings[96];
    snprintf(settings, sizeof settings, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-%d",
             CACHE_KIB);
    if (sqlite3_open(file, &db) != SQLITE_OK || sqlite3_busy_timeout(db, BUSY_MS) != SQLITE_OK ||
        sqlite3_exec(db, settings, NULL, NULL, NULL) != SQLITE_OK)
        return failed("open");
    const struct { sqlite3_stmt **statement; const char *sql; } statements[] = {
        {&begin, "BEGIN IMMEDIATE"},
        {&commit, "COMMIT"},
        {&withdraw, "UPDATE account SET balance = balance - ?2 WHERE id = ?1"},
        {&deposit, "UPDATE account SET balance = balance + ?2 WHERE id = ?1"},
        {&record, "INSERT INTO transfer (source, target, amount) VALUES (?1, ?2, ?3)"},
    };
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (sqlite3_prepare_v2(db, statements[i].sql, -1, statements[i].statement, NULL) != SQLITE_OK)
            return failed("prepare");
    return 0;
}

static void disconnect_file(void) {
    sqlite3_stmt *statements[] = {begin, commit, withdraw, deposit, record};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) sqlite3_finalize(statements[i]);
    if (sqlite3_close(db) != SQLITE_OK) failed("close");
    db = NULL;
}

static int step(sqlite3_stmt *statement, int count, const uint64_t *values) {
    for (int i = 0; i < count; i++) sqlite3_bind_int64(statement, i + 1, (sqlite3_int64)values[i]);
    int result = sqlite3_step(statement);
    sqlite3_reset(statement);
    return result == SQLITE_DONE ? 0 : failed("step");
}

/* The mark of a row's text, as whoever filled the table has made it: FNV-1a of 64 bits. */
static uint64_t mark(const unsigned char *text, int length) {
    uint64_t value = 0xCBF29CE484222325ull;
    for (int i = 0; i < length; i++) value = (value ^ text[i]) * 0x100000001B3ull;
    return value & INT64_MAX;
}

static uint64_t wrong_rows(void) {
    sqlite3_stmt *all;
    uint64_t wrong = 0, seen = 0;
    if (sqlite3_prepare_v2(db, "SELECT text, mark FROM account", -1, &all, NULL) != SQLITE_OK) return 1;
    while (sqlite3_step(all) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(all, 0);
        wrong += mark(text, sqlite3_column_bytes(all, 0)) != (uint64_t)sqlite3_column_int64(all, 1);
        seen++;
    }
    if (sqlite3_finalize(all) != SQLITE_OK) wrong++;
    return wrong + (seen != accounts);
}

static uint64_t wrong(void) {
    uint64_t errors = wrong_rows();
    errors += number("SELECT sum(balance) FROM account") != total;
    errors += number("SELECT count(*) FROM transfer") != (int64_t)transfers;
    return errors;
}

int database_open(const char *path, uint64_t seed) {
    file = path;
    state = seed;
    if (connect_file()) return -1;
    accounts = (uint64_t)number("SELECT count(*) FROM account");
    transfers = (uint64_t)number("SELECT count(*) FROM transfer");
    total = number("SELECT sum(balance) FROM account");
    return wrong() ? failed("rows") : 0;
}

int database_transfer(void) {
    if (step(begin, 0, NULL)) return -1;
    for (int i = 0; i < TRANSFERS; i++) {
        uint64_t from = draw_account(), to = draw_account(), amount = draw() % 100 + 1;
        if (step(withdraw, 2, (uint64_t[]){from, amount}) || step(deposit, 2, (uint64_t[]){to, amount}) ||
            step(record, 3, (uint64_t[]){from, to, amount}))
            return -1;
    }
    if (step(commit, 0, NULL)) return -1;
    transfers += TRANSFERS;
    transactions++;
    return 0;
}

uint64_t database_transactions(void) { return transactions; }

/* So that what is read next comes from the disk. */
static void drop_page_cache(void) {
    int fd = open(file, O_RDONLY);
    if (fd < 0 || fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) printf("{\"error\":\"page cache\"}\n");
    if (fd >= 0) close(fd);
}

uint64_t database_check(void) {
    uint64_t errors = wrong();
    if (sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) != SQLITE_OK) errors++;
    disconnect_file();
    drop_page_cache();
    if (connect_file()) return errors + 1;
    sqlite3_stmt *quick;
    if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &quick, NULL) != SQLITE_OK) return errors + 1;
    if (sqlite3_step(quick) != SQLITE_ROW || strcmp((const char *)sqlite3_column_text(quick, 0), "ok")) errors++;
    sqlite3_finalize(quick);
    return errors + wrong();
}
