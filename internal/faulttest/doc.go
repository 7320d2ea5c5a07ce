// Package faulttest runs the real imagegen while its host fails it: damaged caches,
// mirrors that lie or stop, full and read-only disks, signals, kill -9, and other
// builds at the same time. `make test-faults` runs it; docs/faults.md lists what is
// tried and what the user sees.
//
// The tests work on a copy of the cache, made of hard links: what they damage they
// replace, so that the user's own cache stays as it is.
package faulttest
