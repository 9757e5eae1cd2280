package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

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

func (t *tallies) get(what string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[what]
}

// What more than one place knows the name of.
const (
	bytesEchoed        = "bytes echoed"
	healthySessions    = "healthy sessions"
	resumedSessions    = "healthy sessions that were resumed"
	closesThatWaited   = "Closes that waited for a peer that does not read, 4 s and more"
	handshakesTimedOut = "handshakes that the Listener's timeout ended"
)

func buffersInUse() int64 { return int64(transport.BuffersInUse()) }

// openDescriptors is how many file descriptors the process has; 0 where that cannot be found out.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// row is one figure of the report that is no tally.
type row struct {
	what  string
	value any
}

func (l latency) String() string {
	return fmt.Sprintf("%v, %v, %d", l.median.Round(time.Microsecond), l.most99.Round(time.Microsecond), l.samples)
}

// report prints what was done.
func (r *run) report(out io.Writer, figures []row) {
	r.tallies.mu.Lock()
	defer r.tallies.mu.Unlock()
	fmt.Fprintf(out, "\n| what | how many |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.tallies.all)) {
		fmt.Fprintf(out, "| %s | %d |\n", name, r.tallies.all[name])
	}
	for _, figure := range figures {
		fmt.Fprintf(out, "| %s | %v |\n", figure.what, figure.value)
	}
	lost := "nothing"
	if r.lost != nil {
		lost = r.lost.Error()
	}
	fmt.Fprintf(out, "| lost | %s |\n", lost)
}
