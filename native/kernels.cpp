#include <nanobind/nanobind.h>

NB_MODULE(_kernels, m) { m.doc() = "Kernels on pages and blocks: batches in, batches out, the GIL released."; }
