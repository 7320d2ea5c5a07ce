package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// startupGOGC names the variable that says how much garbage a program may make while
// it starts, as GOGC does for the time after: "400" is four times what it keeps. The
// start of an API server allocates far more than it keeps, and a third of its
// processor time goes into looking for what is still in use.
const startupGOGC = "KILN_STARTUP_GOGC"

const (
	// startTime is what a start may take, that of an API server on a slow machine.
	startTime = 90 * time.Second
	// startupShare is the part of the machine's memory that garbage may fill: a machine
	// with little of it starts more slowly instead of running out.
	startupShare = 8
)

// startCollector lets the collector of garbage rest while the program starts.
// Then GOGC holds again, and what was garbage goes back to the system.
func startCollector() {
	percent, err := strconv.Atoi(os.Getenv(startupGOGC))
	if err != nil || percent <= 0 {
		return
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return
	}
	// A limit that somebody has set (GOMEMLIMIT) stays, if it is the lower one.
	limit := debug.SetMemoryLimit(-1)
	if share := int64(min(uint64(info.Totalram)*uint64(info.Unit)/startupShare, math.MaxInt64)); share < limit {
		debug.SetMemoryLimit(share)
	}
	usual := debug.SetGCPercent(percent)
	time.AfterFunc(startTime, func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(usual)
		debug.FreeOSMemory()
	})
}
