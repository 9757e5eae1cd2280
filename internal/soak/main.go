// Soak loads a Listener with streams that must get every byte, while others do to it whatever a peer can: stall, cut, fragment, flip
// bits, flood, send garbage. It checks that nothing is lost and nothing is left over, prints what was done, and exits with 1
// where that is not so. All of it stays on 127.0.0.1, and all choices follow from the seed. File descriptors are checked on
// Linux only: elsewhere nobody says how many there are.
//
//	go run ./internal/soak                             # half a minute
//	go run ./internal/soak -time 10m -streams 2000     # longer and more
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
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
	factor99  float64

	negligible time.Duration // a latency that is never too long; no flag
}

func main() {
	s := settings{}
	flag.DurationVar(&s.time, "time", 30*time.Second, "how long it takes, about, once all streams are connected: a third without attackers, the rest with them")
	flag.IntVar(&s.streams, "streams", 1000, "how many healthy streams there are at once")
	flag.IntVar(&s.attackers, "attackers", 8, "how many attackers of each kind there are at once")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of all choices")
	flag.Float64Var(&s.factor, "factor", 0, "fail where attackers make the probes' median latency more than so many times what it is without; 0: only report it")
	flag.Float64Var(&s.factor99, "factor99", 0, "the same for what 99 % of their latencies are within")
	flag.Parse()
	if _, err := soak(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

// run is one soak under way.
type run struct {
	settings
	pki          *pki
	honest       map[bool]exchange // what speak exchanges, in TLS 1.2 or not
	timeout      time.Duration     // the server's, for each handshake and each write
	healthyPause time.Duration     // the longest between two messages
	attackPause  time.Duration     // between two attacks, on average
	listener     *sslstream.Listener
	address      string
	ctx          context.Context // ends the load
	dialing      chan struct{}   // one is in it for each healthy client that shakes hands
	tallies      tallies
	latency      latencies
	closes       atomic.Int64 // the longest Close, in nanoseconds
	closing      atomic.Bool  // the Listener is closed, or about to be
	serving      sync.WaitGroup
	served       ends

	mu   sync.Mutex
	lost error // the first failure
}

// probes is how many streams measure the latency. minSamples is how many latencies there must be for their median to mean
// something; there are many more, unless nearly nothing moves.
const (
	probes     = 8
	minSamples = 50
)

// newRun adapts timeouts and pauses to the machine, to the number of those who share it, and to how the program was built: the race
// detector makes all of it several times slower. With fixed ones a large run would only show that the processor is busy, and a
// short one would have hardly a session.
func newRun(s settings) (*run, error) {
	r := &run{settings: s, pki: newPKI(), honest: map[bool]exchange{}, dialing: make(chan struct{}, maxDialing)}
	handshake := time.Duration(math.MaxInt64) // the fastest, because something else may be in the way of others
	for range 5 {
		for _, tls12 := range []bool{true, false} {
			began := time.Now()
			var err error
			if r.honest[tls12], err = r.measureSpeak(tls12); err != nil {
				return nil, err
			}
			if !tls12 {
				handshake = min(handshake, time.Since(began))
			}
		}
	}
	each := func(n int, handshakes time.Duration) time.Duration {
		return time.Duration(n) * handshakes * handshake / time.Duration(runtime.GOMAXPROCS(0))
	}
	hostile := s.attackers * len(attacks)
	r.timeout = 3*time.Second + each(s.streams+hostile, 3)
	r.healthyPause = min(10*time.Second, max(s.time/40, each(s.streams, 4)))
	r.attackPause = max(300*time.Millisecond, each(hostile, 6))
	return r, nil
}

// fail remembers the first thing that went wrong.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == nil {
		r.lost = err
	}
}

// closed closes a stream and remembers how long that took.
func (r *run) closed(s *sslstream.Stream) error {
	began := time.Now()
	err := s.Close()
	took := time.Since(began)
	if took > longClose {
		r.tallies.add(closesThatWaited, 1)
	}
	for {
		longest := r.closes.Load()
		if int64(took) <= longest || r.closes.CompareAndSwap(longest, int64(took)) {
			return err
		}
	}
}

// smallBuffersStall says that a peer that does not read makes Close wait, between small buffers: that was tried on Linux only.
const smallBuffersStall = runtime.GOOS == "linux"

// closeBound is what a Close may take: 5 s, and some more where thousands want the processor. Only one that waits for a peer
// takes longer than longClose.
const (
	closeBound = 8 * time.Second
	longClose  = 4 * time.Second
)

// soak returns how much there was of what.
func soak(s settings, out io.Writer) (*tallies, error) {
	fmt.Fprintf(out, "seed %d, %d streams, %d attackers of each of %d kinds, %v\n", s.seed, s.streams, s.attackers, len(attacks), s.time)
	if limit := descriptorLimit(); limit > 0 && limit < 2*s.streams+4*s.attackers*len(attacks)+100 {
		s.streams = max(10, (limit-4*s.attackers*len(attacks)-100)/2)
		fmt.Fprintf(out, "only %d file descriptors are allowed: %d streams\n", limit, s.streams)
	}
	r, err := newRun(s)
	if err != nil {
		return nil, err
	}
	before := measure()

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.address = inner.Addr().String()
	r.listener = sslstream.NewListener(inner, r.pki.serverOptions())
	r.listener.HandshakeTimeout = r.timeout
	r.listener.OnError = func(conn net.Conn, err error) {
		if errors.Is(err, context.DeadlineExceeded) {
			r.tallies.add(handshakesTimedOut, 1)
			err = fmt.Errorf("HandshakeTimeout, %v: %w", r.timeout, err)
		}
		r.served.failed(conn.RemoteAddr(), err)
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		r.serve()
	}()

	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(context.Background())
	var healthy, hostile, ready sync.WaitGroup
	began := time.Now()
	start := func(n int, client func(number int, ready func())) {
		ready.Add(n)
		for i := range n {
			healthy.Go(func() {
				once := sync.OnceFunc(ready.Done)
				defer once() // also where it fails
				client(i, once)
			})
		}
	}
	start(probes, r.probe)
	start(s.streams, r.healthy)
	ready.Wait()
	connected := time.Since(began)
	time.Sleep(s.time / 9)
	r.latency.take() // while all began at once
	time.Sleep(s.time/3 - s.time/9)
	quiet := r.latency.take()
	attacking, stop := context.WithCancel(context.Background())
	for k, a := range attacks {
		for i := range s.attackers {
			hostile.Go(func() { r.attack(attacking, a, uint64(k*1000+i)) })
		}
	}
	time.Sleep(s.time - s.time/3)
	attacked := r.latency.take()
	cancel()
	healthy.Wait()
	took := time.Since(began)
	stalled, closing := r.closeListener()
	stop()
	hostile.Wait()
	<-accepting
	r.serving.Wait()

	r.checkAttacks()
	r.checkTimeouts()
	r.checkLatency(quiet, attacked)
	left, err := leftOver(before)
	if err != nil {
		r.fail(err)
	}
	r.report(out, []row{
		{"until all streams were connected", connected.Round(time.Millisecond)},
		{"handshakes of ours, both ends", fmt.Sprintf("%d, %.0f a second", left.handshakes, float64(left.handshakes)/took.Seconds())},
		{"of which failed", left.failedHandshakes},
		{"throughput of the echoes", fmt.Sprintf("%.1f MB/s each way", float64(r.tallies.get(bytesEchoed))/1e6/took.Seconds())},
		{"echo of 64 bytes without attackers: median, 99 %, samples", quiet},
		{"echo of 64 bytes under attack: median, 99 %, samples", attacked},
		{"factor, median and 99 %", fmt.Sprintf("%.2f, %.2f", over(attacked.median, quiet.median), over(attacked.most99, quiet.most99))},
		{"the server's timeout of a handshake or a write", r.timeout.Round(time.Millisecond)},
		{"longest Close", time.Duration(r.closes.Load()).Round(time.Millisecond)},
		{"Close of the Listener, and the handshakes that it ended", fmt.Sprintf("%v, %d", closing.Round(time.Microsecond), stalled)},
		{"heap left over, in all and for each handshake", fmt.Sprintf("%d KiB, %d bytes", left.heap>>10, left.heap/max(1, left.handshakes))},
	})
	return &r.tallies, r.lost
}

// closeListener closes it while handshakes are under way that their clients do not go on with, and waits for none of them. It
// returns how many there were, and how long Close took.
func (r *run) closeListener() (stalled int64, took time.Duration) {
	const silent = 10
	var clients []net.Conn
	for range silent {
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			r.fail(err)
			continue
		}
		defer conn.Close()
		clients = append(clients, conn)
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if stalled = sslstream.Stats().CurrentHandshakes; stalled >= silent || time.Since(began) > r.timeout {
			break
		}
	}
	r.closing.Store(true)
	began := time.Now()
	err := r.listener.Close()
	took = time.Since(began)
	switch {
	case err != nil:
		r.fail(err)
	case stalled == 0:
		r.fail(errors.New("no handshake was under way when the Listener was closed"))
	case took > closeBound:
		r.fail(fmt.Errorf("the Listener's Close took %v, with %d handshakes under way", took, stalled))
	}
	for _, conn := range clients {
		conn.SetReadDeadline(time.Now().Add(closeBound))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			r.fail(fmt.Errorf("a handshake goes on %v after the Listener's Close", closeBound))
		}
	}
	return stalled, took
}

// checkTimeouts fails where a Close took too long, and where there was time for the attacks that make the server's timeouts expire,
// and none did.
func (r *run) checkTimeouts() {
	if longest := time.Duration(r.closes.Load()); longest > closeBound {
		r.fail(fmt.Errorf("a Close took %v", longest))
	}
	if attacked := r.time - r.time/3; r.attackers == 0 || attacked < r.timeout+2*time.Second {
		return
	}
	for _, what := range []string{handshakesTimedOut, closesThatWaited} {
		if r.tallies.get(what) == 0 && (what != closesThatWaited || smallBuffersStall) {
			r.fail(fmt.Errorf("no %s", what))
		}
	}
}

// checkLatency fails where attackers cost the probes too much.
func (r *run) checkLatency(quiet, attacked latency) {
	if least := min(quiet.samples, attacked.samples); least < minSamples {
		r.fail(fmt.Errorf("only %d latencies were measured without attackers and %d with them", quiet.samples, attacked.samples))
		return
	}
	for _, c := range []struct {
		what             string
		factor           float64
		quiet, underFire time.Duration
	}{
		{"median", r.factor, quiet.median, attacked.median},
		{"99 %", r.factor99, quiet.most99, attacked.most99},
	} {
		if c.factor > 0 && c.underFire > r.negligible && over(c.underFire, c.quiet) > c.factor {
			r.fail(fmt.Errorf("the latency (%s) is %v under attack and %v without", c.what, c.underFire, c.quiet))
		}
	}
}

// over is a/b.
func over(a, b time.Duration) float64 { return float64(a) / float64(max(1, b)) }

// serve echoes to everybody, healthy or not.
func (r *run) serve() {
	for {
		s, err := r.listener.AcceptStream(context.Background())
		if err != nil {
			return
		}
		r.serving.Go(func() {
			s.SetWriteTimeout(r.timeout) // for who never reads
			s.SetReadTimeout(patience)
			if s.TargetHostName() == stalledHost {
				s.Inner().(*net.TCPConn).SetWriteBuffer(4096)
			}
			r.served.failed(s.RemoteAddr(), serveOne(s))
			r.closed(s)
		})
	}
}

// serveOne echoes until the end.
func serveOne(s *sslstream.Stream) error {
	for buf := make([]byte, 32<<10); ; {
		n, err := s.Read(buf)
		if n > 0 {
			if _, err := s.Write(buf[:n]); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading: %w", err)
		}
	}
}

// measures is what must be the same again afterwards.
type measures struct {
	goroutines, descriptors int
	heap                    int64
	open, buffers           int64
	handshaking             int64

	handshakes, failedHandshakes int64 // there are more afterwards
}

func measure() measures {
	runtime.GC()
	runtime.GC() // pools need two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	stats, open := sslstream.Stats(), int64(0)
	for _, n := range stats.SessionsOpen {
		open += n
	}
	return measures{
		goroutines: runtime.NumGoroutine(), descriptors: openDescriptors(), heap: int64(m.HeapAlloc), open: open, buffers: buffersInUse(),
		handshaking: stats.CurrentHandshakes, handshakes: stats.TotalHandshakes, failedHandshakes: stats.FailedHandshakes,
	}
}

// since is what there is more of than before.
func (m measures) since(before measures) measures {
	return measures{
		m.goroutines - before.goroutines, m.descriptors - before.descriptors, m.heap - before.heap, m.open - before.open,
		m.buffers - before.buffers, m.handshaking - before.handshaking, m.handshakes - before.handshakes,
		m.failedHandshakes - before.failedHandshakes,
	}
}

// How much heap may be left. The runtime keeps what describes a goroutine for the next one, and maps do not shrink; a
// session that is not let go of is much larger than what is allowed for each of its two handshakes.
const (
	heapSlack          = 1 << 20
	heapSlackHandshake = 2 << 10
)

// leftOver waits until everything is as before, and says what is not.
func leftOver(before measures) (left measures, err error) {
	for range 100 {
		left = measure().since(before)
		if left.goroutines <= 0 && left.descriptors <= 0 && left.open == 0 && left.handshaking == 0 && left.buffers == 0 &&
			left.heap <= heapSlack+heapSlackHandshake*left.handshakes {
			return left, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return left, fmt.Errorf("left over: goroutines %d, descriptors %d, open sessions %d, handshakes under way %d, buffers %d, heap %d bytes after %d handshakes\n%s",
		left.goroutines, left.descriptors, left.open, left.handshaking, left.buffers, left.heap, left.handshakes, stacks[:min(len(stacks), 4000)])
}
