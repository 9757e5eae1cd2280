package sslstream_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
	"github.com/sslstream/sslstream/internal/transport"
)

// This file answers what streams hold: buffers while idle and after the end, and allocations per call.

// buffersSettle requires that streams come to hold no more than base and so many more buffers.
func buffersSettle(t *testing.T, base, more int, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return transport.BuffersInUse() <= base+more }, 5*time.Second, time.Millisecond, text)
}

// reading starts a Read and returns once it waits in the inner stream, as far as the caller's waits lets it know.
func reading(s *sslstream.Stream, waits func() bool) (ended chan error, ok bool) {
	ended = make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); ended <- err }()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if waits() {
			return ended, true
		}
	}
	return ended, false
}

// waiting is an inner stream that knows whether somebody reads it.
type waiting struct {
	io.ReadWriteCloser
	mu  sync.Mutex
	now int
}

func (w *waiting) Read(p []byte) (int, error) {
	w.add(1)
	defer w.add(-1)
	return w.ReadWriteCloser.Read(p)
}

func (w *waiting) add(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += n
}

func (w *waiting) reads() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now > 0
}

// TestIdleStreamsHoldNoBuffers looks at pairs that wait for data, before and after much of it.
func TestIdleStreamsHoldNoBuffers(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			for _, leave := range []bool{false, true} {
				name := over.name + "/" + v.name
				var opts []sslstream.Option
				if leave {
					name += "/LeaveInnerOpen"
					opts = append(opts, sslstream.LeaveInnerOpen())
				}
				t.Run(name, func(t *testing.T) {
					base := transport.BuffersInUse()
					a, b := over.make(t)
					// Without deadlines inner is read on a goroutine, into a small buffer for each side; with them into none.
					more := 2
					ends := [2]*waiting{{ReadWriteCloser: a}, {ReadWriteCloser: b}}
					inner := [2]io.ReadWriteCloser{ends[0], ends[1]}
					if _, ok := a.(net.Conn); ok {
						more = 0
						for i, c := range []io.ReadWriteCloser{a, b} {
							inner[i] = struct {
								*waiting
								deadliner
							}{ends[i], c.(deadliner)}
						}
					}
					client, server := newStream(t, inner[0], opts...), newStream(t, inner[1], opts...)
					t.Cleanup(func() { client.Close(); server.Close() })
					co := f.clientOptions()
					co.EnabledProtocols = v.protocol
					err, serverErr := authenticate(t, client, server, co, f.serverOptions())
					require.NoError(t, err)
					require.NoError(t, serverErr)
					idle := func(text string) {
						var ended [2]chan error
						for i, s := range []*sslstream.Stream{client, server} {
							var ok bool
							ended[i], ok = reading(s, ends[i].reads)
							require.True(t, ok)
						}
						buffersSettle(t, base, more, text)
						for i, s := range []*sslstream.Stream{server, client} {
							_, err := s.Write([]byte("x"))
							require.NoError(t, err)
							require.NoError(t, <-ended[i])
						}
					}
					idle("after the handshake")
					want := payload(4 << 20)
					for _, way := range []struct{ from, to *sslstream.Stream }{{client, server}, {server, client}} {
						sent := make(chan error, 1)
						go func() { _, err := way.from.Write(want); sent <- err }()
						_, err := io.ReadFull(way.to, make([]byte, len(want)))
						require.NoError(t, err)
						require.NoError(t, <-sent)
						if more == 0 {
							buffersSettle(t, base, 0, "right after much of it was read")
						}
						idle("after much")
					}
				})
			}
		}
	}
}

// TestClosedStreamsHoldNoBuffers closes streams in the middle of everything.
func TestClosedStreamsHoldNoBuffers(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, tc := range []struct {
			name string
			busy func(t *testing.T, client, server *sslstream.Stream) (ended chan error)
		}{
			{"data that nobody read", func(t *testing.T, client, server *sslstream.Stream) chan error {
				ended := make(chan error, 1)
				go func() { _, err := server.Write(make([]byte, 100<<10)); ended <- err }()
				_, err := io.ReadFull(client, make([]byte, 20_000))
				require.NoError(t, err)
				return ended
			}},
			{"a Read", func(t *testing.T, client, _ *sslstream.Stream) chan error {
				ended := make(chan error, 1)
				go func() { _, err := client.Read(make([]byte, 1)); ended <- err }()
				return ended
			}},
			{"data that cannot be sent", func(t *testing.T, client, server *sslstream.Stream) chan error {
				client.SetWriteTimeout(10 * time.Millisecond)
				for err := error(nil); err == nil; {
					_, err = client.Write(make([]byte, 1<<20))
				}
				server.Inner().Close()
				return nil
			}},
		} {
			for _, leave := range []bool{false, true} {
				name := tc.name + "/" + over.name
				var opts []sslstream.Option
				if leave {
					name += "/LeaveInnerOpen"
					opts = append(opts, sslstream.LeaveInnerOpen())
				}
				t.Run(name, func(t *testing.T) {
					base := transport.BuffersInUse()
					client, server := pairOver(t, over, f.clientOptions(), f.serverOptions(), opts...)
					ended := tc.busy(t, client, server)
					client.Close()
					client.Inner().Close()
					server.Close()
					server.Inner().Close()
					if ended != nil {
						<-ended
					}
					buffersSettle(t, base, 0, "everything is closed")
				})
			}
		}
	}
}

// TestAllocations counts what a call costs in steady state.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("a sync.Pool forgets at random under the race detector")
	}
	f := newFixture(t)
	for _, v := range versions {
		for _, size := range []int{100, 16 << 10, 256 << 10} {
			t.Run(v.name, func(t *testing.T) {
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				client, server := newPair(t, co, f.serverOptions())
				raw := rawPair(t, f, client.ConnectionState().Version)
				records := (size + 16<<10 - 1) / (16 << 10)
				buf, got := make([]byte, size), make([]byte, size)
				measure := func(from, to net.Conn) (write, both float64) {
					start, read := make(chan struct{}), make(chan error)
					defer close(start)
					go func() {
						for range start {
							_, err := io.ReadFull(to, got)
							read <- err
						}
					}()
					both = testing.AllocsPerRun(100, func() {
						start <- struct{}{}
						_, err := from.Write(buf)
						if err := <-read; err != nil {
							t.Error(err)
						}
						if err != nil {
							t.Error(err)
						}
					})
					if size > 16<<10 {
						return 0, both // it would fill the connection
					}
					write = testing.AllocsPerRun(5, func() { from.Write(buf) })
					for range 5 + 1 {
						start <- struct{}{}
						require.NoError(t, <-read)
					}
					return write, both
				}
				write, both := measure(client, server)
				_, rawBoth := measure(raw[0], raw[1])
				assert.Zero(t, write, "a Write of %d bytes", size)
				// AllocsPerRun counts the whole process, and rounds down.
				assert.LessOrEqual(t, both, float64(records+1), "one small object for each time that crypto/tls reads")
				if records == 1 { // of many it reads several at a time, into memory that it keeps
					assert.LessOrEqual(t, both, rawBoth, "no more than crypto/tls's own")
				}
			})
		}
	}
}

// rawPair is crypto/tls alone.
func rawPair(t *testing.T, f *fixture, version uint16) [2]*tls.Conn {
	a, b := testpki.TCP(t)
	client := tls.Client(a, &tls.Config{ServerName: serverName, RootCAs: testpki.Pool(f.root), MaxVersion: version, DynamicRecordSizingDisabled: true})
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{f.server}, DynamicRecordSizingDisabled: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	require.NoError(t, client.Handshake())
	require.NoError(t, <-done)
	return [2]*tls.Conn{client, server}
}
