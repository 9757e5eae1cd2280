// Soak loads a Listener with streams that must get every byte, while others do to it whatever a peer can: stall, cut, fragment, flip
// bits, flood, send garbage. It checks that nothing is lost and nothing is left over, prints what was done, and exits with 1
// where that is not so. All of it stays on 127.0.0.1, and all choices follow from the seed.
//
//	go run ./internal/soak                             # half a minute
//	go run ./internal/soak -time 10m -streams 2000     # longer and more
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sslstream/sslstream"
)

// settings are the flags.
type settings struct {
	time      time.Duration
	streams   int
	attackers int // of each kind
	seed      uint64
	factor    float64
}

func main() {
	s := settings{}
	flag.DurationVar(&s.time, "time", 30*time.Second, "how long it takes, about: a third without attackers, the rest with them")
	flag.IntVar(&s.streams, "streams", 1000, "how many healthy streams there are at once")
	flag.IntVar(&s.attackers, "attackers", 8, "how many attackers of each kind there are at once")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of all choices")
	flag.Float64Var(&s.factor, "factor", 0, "fail where attackers make the healthy streams' median latency more than so many times what it is without; 0: only report it")
	flag.Parse()
	if err := soak(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

// run is one soak under way.
type run struct {
	settings
	pki      *pki
	listener *sslstream.Listener
	address  string
	ctx      context.Context // ends the load
	tallies  tallies
	latency  latencies
	closes   atomic.Int64 // the longest Close, in nanoseconds
	served   sync.WaitGroup

	mu     sync.Mutex
	failed error // the first
}

// fail remembers the first thing that went wrong.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// closed closes a stream and remembers how long that took.
func (r *run) closed(s *sslstream.Stream) error {
	began := time.Now()
	err := s.Close()
	for took := int64(time.Since(began)); ; {
		longest := r.closes.Load()
		if took <= longest || r.closes.CompareAndSwap(longest, took) {
			return err
		}
	}
}

// closeBound is what a Close may take: 5 s, and some more where thousands want the processor.
const closeBound = 8 * time.Second

func soak(s settings, out io.Writer) error {
	fmt.Fprintf(out, "seed %d, %d streams, %d attackers of each of %d kinds, %v\n", s.seed, s.streams, s.attackers, len(attacks), s.time)
	if limit := descriptorLimit(); limit > 0 && limit < 2*s.streams+4*s.attackers*len(attacks)+100 {
		s.streams = max(10, (limit-4*s.attackers*len(attacks)-100)/2)
		fmt.Fprintf(out, "only %d file descriptors are allowed: %d streams\n", limit, s.streams)
	}
	r := &run{settings: s, pki: newPKI()}
	before := measure()

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.address = inner.Addr().String()
	r.listener = sslstream.NewListener(inner, r.pki.serverOptions())
	r.listener.HandshakeTimeout = 2 * time.Second
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		r.serve()
	}()

	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(context.Background())
	var healthy, hostile sync.WaitGroup
	began := time.Now()
	for i := range s.streams {
		healthy.Go(func() { r.healthy(i) })
	}
	time.Sleep(s.time / 9)
	r.latency.take() // while all began at once
	time.Sleep(s.time/3 - s.time/9)
	quiet := r.latency.take()
	attacking, stop := context.WithCancel(r.ctx)
	for k, a := range attacks {
		for i := range s.attackers {
			hostile.Go(func() { r.attack(attacking, a, uint64(k*1000+i)) })
		}
	}
	time.Sleep(s.time - s.time/3)
	attacked := r.latency.take()
	stop()
	cancel()
	healthy.Wait()
	hostile.Wait()
	took := time.Since(began)
	if err := r.listener.Close(); err != nil {
		r.fail(err)
	}
	<-accepting
	r.served.Wait()
	r.report(out, took, quiet, attacked)
	if err := leftOver(before); err != nil {
		r.fail(err)
	}
	if longest := time.Duration(r.closes.Load()); longest > closeBound {
		r.fail(fmt.Errorf("a Close took %v", longest))
	}
	if s.factor > 0 && attacked.median() > time.Duration(s.factor*float64(quiet.median())) {
		r.fail(fmt.Errorf("the median latency is %v under attack and %v without", attacked.median(), quiet.median()))
	}
	return r.failed
}

// serve echoes to everybody, healthy or not.
func (r *run) serve() {
	for {
		s, err := r.listener.AcceptStream(context.Background())
		if err != nil {
			return
		}
		r.served.Go(func() {
			s.SetWriteTimeout(3 * time.Second) // for who never reads
			s.SetReadTimeout(10 * time.Second)
			buf := make([]byte, 32<<10)
			for {
				n, err := s.Read(buf)
				if n > 0 {
					if _, err := s.Write(buf[:n]); err != nil {
						break
					}
				}
				if err != nil {
					break
				}
			}
			r.closed(s)
		})
	}
}

// measures is what must be the same again afterwards.
type measures struct {
	goroutines, descriptors int
	heap                    uint64
	open                    int64
}

func measure() measures {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open := int64(0)
	for _, n := range sslstream.Stats().SessionsOpen {
		open += n
	}
	return measures{runtime.NumGoroutine(), openDescriptors(), m.HeapAlloc, open}
}

// leftOver waits until everything is as before, and says what is not.
func leftOver(before measures) error {
	const heapSlack = 32 << 20 // pools, maps that have grown
	var now measures
	for range 100 {
		now = measure()
		stats := sslstream.Stats()
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.open == before.open && stats.CurrentHandshakes == 0 && buffersInUse() == 0 && now.heap <= before.heap+heapSlack {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return fmt.Errorf("left over: goroutines %d (%d before), descriptors %d (%d), heap %d (%d), open sessions %d (%d), handshakes %d, buffers %d\n%s",
		now.goroutines, before.goroutines, now.descriptors, before.descriptors, now.heap, before.heap, now.open, before.open,
		sslstream.Stats().CurrentHandshakes, buffersInUse(), stacks[:min(len(stacks), 4000)])
}
