package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/transport"
)

// tallies counts what was done.
type tallies struct {
	mu  sync.Mutex
	all map[string]int64
}

func (t *tallies) add(what string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[string]int64{}
	}
	t.all[what] += n
}

func buffersInUse() int64 { return int64(transport.BuffersInUse()) }

// openDescriptors is how many file descriptors the process has; 0 where that cannot be found out.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// report prints what was done.
func (r *run) report(out io.Writer, took time.Duration, quiet, attacked sorted) {
	stats := sslstream.Stats()
	r.tallies.mu.Lock()
	defer r.tallies.mu.Unlock()
	fmt.Fprintf(out, "\n| what | how many |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.tallies.all)) {
		fmt.Fprintf(out, "| %s | %d |\n", name, r.tallies.all[name])
	}
	fmt.Fprintf(out, "| handshakes of ours, both ends | %d, %.0f a second |\n", stats.TotalHandshakes, float64(stats.TotalHandshakes)/took.Seconds())
	fmt.Fprintf(out, "| of which failed | %d |\n", stats.FailedHandshakes)
	fmt.Fprintf(out, "| throughput of the echoes | %.1f MB/s each way |\n", float64(r.tallies.all["bytes echoed"])/1e6/took.Seconds())
	fmt.Fprintf(out, "| echo of 64 bytes without attackers, median and 99 %% | %v, %v |\n", quiet.median().Round(time.Microsecond), quiet.at(0.99).Round(time.Microsecond))
	fmt.Fprintf(out, "| echo of 64 bytes under attack, median and 99 %% | %v, %v |\n", attacked.median().Round(time.Microsecond), attacked.at(0.99).Round(time.Microsecond))
	if quiet.median() > 0 {
		fmt.Fprintf(out, "| factor, median and 99 %% | %.2f, %.2f |\n", float64(attacked.median())/float64(quiet.median()), float64(attacked.at(0.99))/float64(quiet.at(0.99)))
	}
	fmt.Fprintf(out, "| longest Close | %v |\n", time.Duration(r.closes.Load()).Round(time.Millisecond))
	lost := "nothing"
	if r.failed != nil {
		lost = r.failed.Error()
	}
	fmt.Fprintf(out, "| lost | %s |\n", lost)
}
