//go:build unix

package main

import (
	"syscall"
	"time"
)

// processTime is the processor time of the process so far, in user and kernel mode.
func processTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
