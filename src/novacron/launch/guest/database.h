/* A database on the disk that is worked on: accounts, transfers between them, a history. */
#pragma once
#include <stdint.h>

/* Opens it, and reads all of it; what it finds is what must stay. Zero when that was done. */
int database_open(const char *path, uint64_t seed);

/* One transaction of several transfers, durable when this returns. Zero when that was done. */
int database_transfer(void);

uint64_t database_transactions(void);

/* Errors in what the page cache has and, after a checkpoint, in what the disk has: rows whose text is not what it was,
 * a sum that is not what it was, transfers that are missing or too many, pages that SQLite calls damaged. */
uint64_t database_check(void);
