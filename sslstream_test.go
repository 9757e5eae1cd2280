package sslstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

func TestNetConn(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			t.Run(over.name+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.EnabledProtocols = v.protocol
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					client, server := pairOver(t, over, co, so)
					return client, server, func() {
						// At once: over a synchronous pipe neither could tell the other that it ends.
						var wg sync.WaitGroup
						wg.Go(func() { client.Close() })
						wg.Go(func() { server.Close() })
						wg.Wait()
					}, nil
				})
			})
		}
	}
}

// payload is n bytes that do not repeat.
func payload(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestDataOfAllSizes(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			for _, exact := range []bool{false, true} {
				name := over.name + "/" + v.name
				var opts []sslstream.Option
				if exact {
					name += "/LeaveInnerOpen"
					opts = append(opts, sslstream.LeaveInnerOpen())
				}
				t.Run(name, func(t *testing.T) {
					co, so := f.clientOptions(), f.serverOptions()
					co.EnabledProtocols = v.protocol
					client, server := pairOver(t, over, co, so, opts...)
					for _, size := range []int{0, 1, 2, 100, 16<<10 - 1, 16 << 10, 16<<10 + 1, 64 << 10, 64<<10 + 1, 1 << 20} {
						for _, way := range []struct{ from, to *sslstream.Stream }{{client, server}, {server, client}} {
							want := payload(size)
							written := make(chan struct{})
							go func() {
								defer close(written)
								n, err := way.from.Write(want)
								assert.NoError(t, err)
								assert.Equal(t, size, n)
							}()
							got := make([]byte, size)
							_, err := io.ReadFull(way.to, got)
							require.NoError(t, err)
							<-written
							require.True(t, bytes.Equal(want, got), "%d bytes", size)
						}
					}
				})
			}
		}
	}
}

func TestEmptyReadAndWrite(t *testing.T) {
	f := newFixture(t)
	a, b := testpki.TCP(t)
	inner := &recorder{Conn: a}
	client, server := newStream(t, inner), newStream(t, b)
	err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
	require.NoError(t, errors.Join(err, serverErr))
	sent := len(inner.writes)
	n, err := client.Write(nil)
	assert.NoError(t, err)
	assert.Zero(t, n)
	n, err = client.Read(nil)
	assert.NoError(t, err)
	assert.Zero(t, n)
	assert.Len(t, inner.writes, sent, "nothing is sent for nothing")
}

func TestSmallWriteIsOneRecordInOneWrite(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		size, writes int
	}{{1, 1}, {1000, 1}, {16 << 10, 1}, {64 << 10, 2}, {1 << 20, 20}} {
		for _, v := range versions {
			a, b := testpki.TCP(t)
			inner := &recorder{Conn: a}
			client, server := newStream(t, inner), newStream(t, b)
			co := f.clientOptions()
			co.EnabledProtocols = v.protocol
			err, serverErr := authenticate(t, client, server, co, f.serverOptions())
			require.NoError(t, errors.Join(err, serverErr))
			go io.Copy(io.Discard, server)
			before := len(inner.writes)
			_, err = client.Write(make([]byte, tc.size))
			require.NoError(t, err)
			writes := inner.writes[before:]
			assert.LessOrEqual(t, len(writes), tc.writes, "%d bytes", tc.size)
			records := 0
			for _, w := range writes {
				for len(w) > 0 {
					records++
					w = w[5+int(w[3])<<8+int(w[4]):]
				}
			}
			assert.Equal(t, (tc.size+16<<10-1)/(16<<10), records, "%d bytes: no small records at first", tc.size)
		}
	}
	t.Run("TLS 1.0 splits it", func(t *testing.T) {
		skipInFIPSMode(t, "TLS 1.0")
		a, b := testpki.TCP(t)
		inner := &recorder{Conn: a}
		client, server := newStream(t, inner), newStream(t, b)
		co, so := f.clientOptions(), f.serverOptions()
		co.EnabledProtocols, so.EnabledProtocols = tls10, tls10
		err, serverErr := authenticate(t, client, server, co, so)
		require.NoError(t, errors.Join(err, serverErr))
		go io.Copy(io.Discard, server)
		before := len(inner.writes)
		_, err = client.Write(make([]byte, 16<<10))
		require.NoError(t, err)
		require.Len(t, inner.writes, before+1, "still one Write")
		assert.Greater(t, len(inner.writes[before]), 5+int(inner.writes[before][3])<<8+int(inner.writes[before][4]), "of two records")
	})
	t.Run("dynamic record sizing where it is asked for", func(t *testing.T) {
		a, b := testpki.TCP(t)
		inner := &recorder{Conn: a}
		client, server := newStream(t, inner), newStream(t, b)
		co := f.clientOptions()
		co.TLSConfig = &tls.Config{}
		err, serverErr := authenticate(t, client, server, co, f.serverOptions())
		require.NoError(t, errors.Join(err, serverErr))
		go io.Copy(io.Discard, server)
		before := len(inner.writes)
		_, err = client.Write(make([]byte, 16<<10))
		require.NoError(t, err)
		require.Len(t, inner.writes, before+1, "still one Write")
		first := inner.writes[before]
		assert.Less(t, int(first[3])<<8+int(first[4]), 1300, "of small records")
	})
}

func TestReadTimeoutLeavesStreamUsable(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			t.Run(over.name+"/"+v.name, func(t *testing.T) {
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				client, server := pairOver(t, over, co, f.serverOptions())
				for _, end := range []struct {
					name string
					read func() error
					want error
				}{
					{"deadline", func() error {
						client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
						defer client.SetReadDeadline(time.Time{})
						_, err := client.Read(make([]byte, 1))
						return err
					}, os.ErrDeadlineExceeded},
					{"past deadline", func() error {
						client.SetDeadline(time.Now().Add(-time.Second))
						defer client.SetDeadline(time.Time{})
						n, err := client.Write([]byte("never sent"))
						assert.Zero(t, n)
						assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
						_, err = client.Read(make([]byte, 1))
						return err
					}, os.ErrDeadlineExceeded},
					{"deadline set meanwhile", func() error {
						time.AfterFunc(10*time.Millisecond, func() { client.SetReadDeadline(time.Now()) })
						defer client.SetReadDeadline(time.Time{})
						_, err := client.Read(make([]byte, 1))
						return err
					}, os.ErrDeadlineExceeded},
					{"timeout", func() error {
						client.SetReadTimeout(10 * time.Millisecond)
						defer client.SetReadTimeout(0)
						_, err := client.Read(make([]byte, 1))
						return err
					}, os.ErrDeadlineExceeded},
					{"context cancelled", func() error {
						ctx, cancel := context.WithCancel(context.Background())
						time.AfterFunc(10*time.Millisecond, cancel)
						_, err := client.ReadContext(ctx, make([]byte, 1))
						return err
					}, context.Canceled},
					{"context's deadline", func() error {
						ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
						defer cancel()
						_, err := client.ReadContext(ctx, make([]byte, 1))
						return err
					}, context.DeadlineExceeded},
					{"context ended before", func() error {
						ctx, cancel := context.WithCancel(context.Background())
						cancel()
						_, err := client.ReadContext(ctx, make([]byte, 1))
						return err
					}, context.Canceled},
				} {
					err := end.read()
					require.ErrorIs(t, err, end.want, end.name)
					var timeout net.Error
					if end.want != context.Canceled {
						require.ErrorAs(t, err, &timeout)
						assert.True(t, timeout.Timeout())
					}
					exchange(t, client, server)
				}
			})
		}
	}
}

// TestTimeoutCountsTheWaitForOthers has calls that wait for another one first: their timeout is that of the whole call.
func TestTimeoutCountsTheWaitForOthers(t *testing.T) {
	for name, call := range map[string]func(*sslstream.Stream) error{
		"Read":  func(s *sslstream.Stream) error { _, err := s.Read(make([]byte, 1)); return err },
		"Write": func(s *sslstream.Stream) error { _, err := s.Write(make([]byte, 1<<20)); return err },
	} {
		for _, over := range carriers[1:] {
			t.Run(name+"/"+over.name, func(t *testing.T) {
				testpki.Bubble(t, func(t *testing.T) {
					f := newFixture(t) // valid in the bubble's time
					a, b := over.make(t)
					client, server := newStream(t, a), newStream(t, b)
					done := make(chan error, 1)
					go func() { done <- server.AuthenticateAsServer(context.Background(), f.serverOptions()) }()
					require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
					require.NoError(t, <-done)
					client.SetReadTimeout(time.Second)
					client.SetWriteTimeout(time.Second)
					var calls sync.WaitGroup
					for range 3 {
						calls.Go(func() {
							began := time.Now()
							assert.ErrorIs(t, call(client), os.ErrDeadlineExceeded)
							assert.Equal(t, time.Second, time.Since(began))
						})
						time.Sleep(300 * time.Millisecond)
					}
					calls.Wait()
					a.Close()
					b.Close()
					client.Close()
					server.Close()
				})
			})
		}
	}
}

// TestWriteTimeoutLosesNothing has a peer that does not read, and goes on once it does.
func TestWriteTimeoutLosesNothing(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			for _, end := range []struct {
				name  string
				write func(*sslstream.Stream, []byte) (int, error)
				want  error
			}{
				{"deadline", func(s *sslstream.Stream, p []byte) (int, error) {
					s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
					defer s.SetWriteDeadline(time.Time{})
					return s.Write(p)
				}, os.ErrDeadlineExceeded},
				{"timeout", func(s *sslstream.Stream, p []byte) (int, error) {
					s.SetWriteTimeout(20 * time.Millisecond)
					defer s.SetWriteTimeout(0)
					return s.Write(p)
				}, os.ErrDeadlineExceeded},
				{"context", func(s *sslstream.Stream, p []byte) (int, error) {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
					defer cancel()
					return s.WriteContext(ctx, p)
				}, context.DeadlineExceeded},
			} {
				t.Run(over.name+"/"+v.name+"/"+end.name, func(t *testing.T) {
					co := f.clientOptions()
					co.EnabledProtocols = v.protocol
					client, server := pairOver(t, over, co, f.serverOptions())
					want := payload(16 << 20)
					sent := 0
					for range 3 {
						n, err := end.write(client, want[sent:])
						require.ErrorIs(t, err, end.want)
						sent += n
						require.Less(t, sent, len(want))
					}
					got := make(chan []byte, 1)
					go func() {
						b, err := io.ReadAll(server)
						assert.NoError(t, err)
						got <- b
					}()
					if v.protocol == sslstream.ProtocolTLS12 { // either way of going on
						require.NoError(t, client.Flush())
					}
					n, err := client.Write(want[sent:])
					require.NoError(t, err)
					assert.Equal(t, len(want), sent+n)
					require.NoError(t, client.CloseWrite())
					assert.True(t, bytes.Equal(want, <-got))
				})
			}
		}
	}
}

func TestReadFromAndWriteTo(t *testing.T) {
	f := newFixture(t)
	want := payload(3<<20 + 17)
	for name, reader := range map[string]io.Reader{
		"all at once":      bytes.NewReader(want),
		"in small pieces":  iotest.HalfReader(bytes.NewReader(want)),
		"data with EOF":    iotest.DataErrReader(bytes.NewReader(want)),
		"without WriterTo": struct{ io.Reader }{bytes.NewReader(want)},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := newPair(t, f.clientOptions(), f.serverOptions())
			go func() {
				n, err := client.ReadFrom(reader)
				assert.NoError(t, err)
				assert.EqualValues(t, len(want), n)
				assert.NoError(t, client.CloseWrite())
			}()
			var got bytes.Buffer
			n, err := server.WriteTo(&got)
			require.NoError(t, err)
			assert.EqualValues(t, len(want), n)
			assert.True(t, bytes.Equal(want, got.Bytes()))
		})
	}
	t.Run("errors of the reader", func(t *testing.T) {
		broken := errors.New("broken")
		client, _ := newPair(t, f.clientOptions(), f.serverOptions())
		_, err := client.ReadFrom(iotest.ErrReader(broken))
		assert.ErrorIs(t, err, broken)
		_, err = client.ReadFrom(readerFunc(func([]byte) (int, error) { return 0, nil }))
		assert.ErrorIs(t, err, io.ErrNoProgress)
		_, err = client.ReadFrom(readerFunc(func([]byte) (int, error) { return -1, nil }))
		assert.Error(t, err)
	})
	t.Run("errors of the writer", func(t *testing.T) {
		client, server := newPair(t, f.clientOptions(), f.serverOptions())
		_, err := client.Write([]byte("hello"))
		require.NoError(t, err)
		n, err := server.WriteTo(writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil }))
		assert.ErrorIs(t, err, io.ErrShortWrite)
		assert.EqualValues(t, 4, n)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCloseWrite(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			t.Run(over.name+"/"+v.name, func(t *testing.T) {
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				client, server := pairOver(t, over, co, f.serverOptions())
				closed := make(chan struct{})
				go func() {
					defer close(closed)
					io.WriteString(client, "last words")
					assert.NoError(t, client.CloseWrite())
					assert.NoError(t, client.CloseWrite(), "again")
				}()
				got, err := io.ReadAll(server)
				require.NoError(t, err)
				assert.Equal(t, "last words", string(got))
				assert.True(t, server.ReceivedCloseNotify())
				assert.False(t, client.ReceivedCloseNotify())
				<-closed
				assert.False(t, client.CanWrite())
				_, err = client.Write([]byte("x"))
				assert.ErrorIs(t, err, sslstream.ErrWriteClosed)
				assert.NoError(t, client.Flush())
				assert.True(t, client.CanRead())

				go io.WriteString(server, "answer") // reading goes on
				buf := make([]byte, 6)
				_, err = io.ReadFull(client, buf)
				require.NoError(t, err)
				assert.Equal(t, "answer", string(buf))
				n, err := server.Read(buf)
				assert.Zero(t, n)
				assert.Equal(t, io.EOF, err, "sticky")
			})
		}
	}
}

// TestWriteClosedWhateverTheDeadline has an expired deadline besides: waiting longer would not help.
func TestWriteClosedWhateverTheDeadline(t *testing.T) {
	f := newFixture(t)
	client, _ := newPair(t, f.clientOptions(), f.serverOptions())
	require.NoError(t, client.CloseWrite())
	client.SetWriteDeadline(time.Now().Add(-time.Second))
	_, err := client.Write([]byte("x"))
	assert.ErrorIs(t, err, sslstream.ErrWriteClosed)
}

// TestEnds tells the ends apart: close_notify, the inner stream's end between records, and inside one.
func TestEnds(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		for _, strict := range []bool{false, true} {
			run := func(name string, end func(client *sslstream.Stream, inner net.Conn), want, wantStrict error, notify bool) {
				if strict {
					name += "/RequireCloseNotify"
				}
				t.Run(name+"/"+v.name, func(t *testing.T) {
					a, b := testpki.TCP(t)
					client, server := newStream(t, a), newStream(t, b)
					co, so := f.clientOptions(), f.serverOptions()
					co.EnabledProtocols, so.RequireCloseNotify = v.protocol, strict
					err, serverErr := authenticate(t, client, server, co, so)
					require.NoError(t, errors.Join(err, serverErr))
					_, err = client.Write([]byte("data"))
					require.NoError(t, err)
					end(client, a)
					got := make([]byte, 4)
					_, err = io.ReadFull(server, got)
					require.NoError(t, err)
					if strict {
						want = wantStrict
					}
					for range 2 {
						n, err := server.Read(got)
						assert.Zero(t, n)
						assert.Equal(t, want, err)
					}
					assert.Equal(t, notify, server.ReceivedCloseNotify())
				})
			}
			run("close_notify", func(c *sslstream.Stream, _ net.Conn) { c.Close() }, io.EOF, io.EOF, true)
			run("hang-up", func(_ *sslstream.Stream, inner net.Conn) { inner.(*net.TCPConn).CloseWrite() }, io.EOF, io.ErrUnexpectedEOF, false)
			run("inside a header", func(_ *sslstream.Stream, inner net.Conn) {
				inner.Write([]byte{23, 3, 3})
				inner.(*net.TCPConn).CloseWrite()
			}, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, false)
			run("inside a record", func(_ *sslstream.Stream, inner net.Conn) {
				inner.Write([]byte{23, 3, 3, 0, 50, 1, 2, 3})
				inner.(*net.TCPConn).CloseWrite()
			}, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, false)
		}
	}
}

// TestUnwrap downgrades to plain text and upgrades again on one connection, with plain text right behind TLS.
func TestUnwrap(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			t.Run(over.name+"/"+v.name, func(t *testing.T) {
				co, so := f.mutual()
				co.EnabledProtocols = v.protocol
				a, b := over.make(t)
				ctx := testContext(t)
				const plain = "plain text, not a byte of which is TLS's\n"
				run := func(inner io.ReadWriteCloser, role func(*sslstream.Stream) error) error {
					for range 3 {
						s := newStream(t, inner, sslstream.LeaveInnerOpen())
						if err := role(s); err != nil {
							return err
						}
						back, err := s.Unwrap(ctx)
						if err != nil {
							return err
						}
						if back != inner || !s.ReceivedCloseNotify() {
							return errors.New("not unwrapped")
						}
						if again, err := s.Unwrap(ctx); again != inner || err != nil {
							return errors.New("a second Unwrap differs")
						}
						if _, err := s.Write([]byte("x")); !errors.Is(err, sslstream.ErrWriteClosed) {
							return errors.New("Write after Unwrap")
						}
						if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
							return errors.New("Read after Unwrap")
						}
						if err := errors.Join(s.Flush(), s.CloseWrite(), s.Close()); err != nil {
							return err
						}
						written := make(chan error, 1)
						go func() { _, err := io.WriteString(inner, plain); written <- err }()
						buf := make([]byte, len(plain))
						if _, err := io.ReadFull(inner, buf); err != nil {
							return err
						}
						if string(buf) != plain {
							return errors.New("plain text differs: " + string(buf))
						}
						if err := <-written; err != nil {
							return err
						}
					}
					return nil
				}
				done := make(chan error, 1)
				go func() {
					done <- run(b, func(s *sslstream.Stream) error {
						if err := s.AuthenticateAsServer(ctx, so); err != nil {
							return err
						}
						_, err := io.WriteString(s, strings.Repeat("from the server ", 2000))
						return err
					})
				}()
				require.NoError(t, run(a, func(s *sslstream.Stream) error {
					if err := s.AuthenticateAsClient(ctx, co); err != nil {
						return err
					}
					// Some of it is left for Unwrap to discard.
					_, err := io.ReadFull(s, make([]byte, 1000))
					return err
				}))
				require.NoError(t, <-done)
			})
		}
	}
}

// TestUnwrapLeavesWhatFollows has the plain text in the same segment as close_notify.
func TestUnwrapLeavesWhatFollows(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		for _, readFirst := range []bool{false, true} {
			t.Run(v.name, func(t *testing.T) {
				a, b := testpki.TCP(t)
				hold := &holding{Conn: a}
				client, server := newStream(t, hold, sslstream.LeaveInnerOpen()), newStream(t, b, sslstream.LeaveInnerOpen())
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				err, serverErr := authenticate(t, client, server, co, f.serverOptions())
				require.NoError(t, errors.Join(err, serverErr))
				hold.hold(true)
				io.WriteString(client, "data")
				require.NoError(t, client.CloseWrite())
				io.WriteString(hold, "plain text")
				hold.hold(false) // all in one Write

				if readFirst {
					got, err := io.ReadAll(server)
					require.NoError(t, err)
					assert.Equal(t, "data", string(got))
				}
				inner, err := server.Unwrap(testContext(t))
				require.NoError(t, err)
				buf := make([]byte, 10)
				_, err = io.ReadFull(inner, buf)
				require.NoError(t, err)
				assert.Equal(t, "plain text", string(buf))
			})
		}
	}
}

// holding is a connection that can keep what is written, to send it in one piece.
type holding struct {
	net.Conn
	mu   sync.Mutex
	on   bool
	kept []byte
}

func (h *holding) hold(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on = on; !on {
		h.Conn.Write(h.kept)
		h.kept = nil
	}
}

func (h *holding) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on {
		h.kept = append(h.kept, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func TestUnwrapFails(t *testing.T) {
	f := newFixture(t)
	t.Run("without LeaveInnerOpen", func(t *testing.T) {
		client, server := newPair(t, f.clientOptions(), f.serverOptions())
		_, err := client.Unwrap(t.Context())
		assert.ErrorContains(t, err, "LeaveInnerOpen")
		_, err = client.Detach()
		assert.ErrorContains(t, err, "LeaveInnerOpen")
		exchange(t, client, server)
	})
	t.Run("the peer hangs up", func(t *testing.T) {
		client, server := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
		server.Inner().(*net.TCPConn).CloseWrite()
		inner, err := client.Unwrap(testContext(t))
		assert.Equal(t, io.ErrUnexpectedEOF, err)
		assert.Nil(t, inner)
	})
	for _, over := range carriers {
		t.Run("the peer does not answer/"+over.name, func(t *testing.T) {
			client, server := pairOver(t, over, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			_, err := client.Unwrap(ctx)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.False(t, client.CanWrite())

			done := make(chan error, 1)
			go func() { _, err := server.Unwrap(testContext(t)); done <- err }()
			_, err = client.Unwrap(testContext(t))
			assert.NoError(t, err, "it can be tried again")
			assert.NoError(t, <-done)
		})
	}
}

// TestUnwrapAtOnceWithOthers has each side call Unwrap and what may go with it from several goroutines.
func TestUnwrapAtOnceWithOthers(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		t.Run(over.name, func(t *testing.T) {
			client, server := pairOver(t, over, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
			ctx := testContext(t)
			var calls sync.WaitGroup
			for _, s := range []*sslstream.Stream{client, server} {
				for range 4 {
					calls.Go(func() {
						inner, err := s.Unwrap(ctx)
						assert.NoError(t, err)
						assert.Equal(t, s.Inner(), inner)
					})
					calls.Go(func() {
						_, err := s.Read(make([]byte, 1))
						assert.Equal(t, io.EOF, err)
					})
					calls.Go(func() { assert.NoError(t, errors.Join(s.CloseWrite(), s.Flush())) })
				}
			}
			calls.Wait()
		})
	}
}

func TestDetach(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			co := f.clientOptions()
			co.EnabledProtocols = v.protocol
			a, b := testpki.TCP(t)
			inner := &counter{ReadWriteCloser: a}
			client, server := newStream(t, inner, sslstream.LeaveInnerOpen()), newStream(t, b, sslstream.LeaveInnerOpen())
			err, serverErr := authenticate(t, client, server, co, f.serverOptions())
			require.NoError(t, errors.Join(err, serverErr))
			exchange(t, client, server)

			// Plaintext that nobody has read is not thrown away.
			_, err = server.Write([]byte("hello"))
			require.NoError(t, err)
			buf := make([]byte, 2)
			_, err = client.Read(buf)
			require.NoError(t, err)
			for range 2 {
				_, err = client.Detach()
				require.ErrorContains(t, err, "plaintext unread")
			}
			rest := make([]byte, 3)
			_, err = io.ReadFull(client, rest)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(buf)+string(rest))

			sent, received := inner.written, inner.read
			back, err := client.Detach()
			require.NoError(t, err)
			assert.Same(t, inner, back)
			assert.Equal(t, sent, inner.written)
			assert.Equal(t, received, inner.read)
			assert.NoError(t, client.Close())
			assert.Zero(t, inner.closed)
			_, err = server.Detach()
			require.NoError(t, err)

			go io.WriteString(a, "in plain text")
			plain := make([]byte, 13)
			_, err = io.ReadFull(b, plain)
			require.NoError(t, err)
			assert.Equal(t, "in plain text", string(plain))
		})
	}
	t.Run("what is in the way", func(t *testing.T) {
		a, b := testpki.TCP(t)
		client, server := newStream(t, a, sslstream.LeaveInnerOpen()), newStream(t, b, sslstream.LeaveInnerOpen())
		err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
		require.NoError(t, errors.Join(err, serverErr))
		exchange(t, client, server)

		ctx, cancel := context.WithCancel(context.Background())
		reading := make(chan error, 1)
		go func() { _, err := client.ReadContext(ctx, make([]byte, 1)); reading <- err }()
		time.Sleep(50 * time.Millisecond) // before it reads, nothing would be in the way
		require.Eventually(t, func() bool {
			_, err := client.Detach()
			if err == nil {
				t.Error("detached under a Read")
			}
			return err != nil && strings.Contains(err.Error(), "Read is under way")
		}, 5*time.Second, time.Millisecond)
		cancel()
		require.ErrorIs(t, <-reading, context.Canceled)

		b.Write([]byte{23, 3, 3, 0, 100, 0}) // the beginning of a record
		client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = client.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		_, err = client.Detach()
		assert.ErrorContains(t, err, "inside a record")

		for n := 0; n == 0 || err == nil; { // until a Write was cut short, rather than refused at once
			client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			n, err = client.Write(make([]byte, 64<<10))
		}
		_, err = client.Detach()
		assert.ErrorContains(t, err, "still to be sent")
	})
}

func TestLeaveInnerOpen(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, leave := range []bool{false, true} {
			name := over.name
			var opts []sslstream.Option
			if leave {
				name += "/LeaveInnerOpen"
				opts = append(opts, sslstream.LeaveInnerOpen())
			}
			t.Run(name, func(t *testing.T) {
				a, b := over.make(t)
				inner := &counter{ReadWriteCloser: a}
				client, server := newStream(t, inner, opts...), newStream(t, b, opts...)
				assert.Equal(t, leave, client.LeavesInnerOpen())
				assert.Same(t, inner, client.Inner())
				err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
				require.NoError(t, errors.Join(err, serverErr))
				exchange(t, client, server)
				eof := make(chan error, 1)
				go func() { _, err := server.Read(make([]byte, 1)); eof <- err }()
				require.NoError(t, client.Close())
				assert.Equal(t, io.EOF, <-eof)
				assert.True(t, server.ReceivedCloseNotify(), "Close is an orderly end")
				assert.Equal(t, leave, inner.closed == 0)
				assert.NotZero(t, client.Protocol(), "properties are kept")
				assert.NotNil(t, client.RemoteCertificate())
				if leave {
					go io.WriteString(a, "still open")
					buf := make([]byte, 10)
					_, err = io.ReadFull(b, buf)
					require.NoError(t, err)
					assert.Equal(t, "still open", string(buf))
				}
			})
		}
	}
}

func TestCloseUnblocksPendingCalls(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, leave := range []bool{false, true} {
			name := over.name
			var opts []sslstream.Option
			if leave {
				name += "/LeaveInnerOpen"
				opts = append(opts, sslstream.LeaveInnerOpen())
			}
			t.Run(name, func(t *testing.T) {
				client, _ := pairOver(t, over, f.clientOptions(), f.serverOptions(), opts...)
				ended := make(chan error, 4)
				for range 2 {
					go func() { _, err := client.Read(make([]byte, 1)); ended <- err }()
				}
				for range 2 {
					go func() {
						var err error
						for err == nil {
							_, err = client.Write(make([]byte, 1<<20))
						}
						ended <- err
					}()
				}
				time.Sleep(20 * time.Millisecond)
				began := time.Now()
				go client.Close()
				for range 4 {
					assert.ErrorIs(t, <-ended, net.ErrClosed)
				}
				assert.Less(t, time.Since(began), 4*time.Second, "long before Close gives up sending")
			})
		}
	}
}

// TestCloseIsBounded has a peer that takes nothing any more.
func TestCloseIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name    string
		data    bool // unsent data of the user's
		atMost  time.Duration
		wantErr bool
	}{
		{"close_notify", false, time.Second, false},
		{"data", true, 5 * time.Second, true},
	} {
		for _, over := range carriers[1:] {
			for _, leave := range []bool{false, true} {
				name := tc.name + "/" + over.name
				var opts []sslstream.Option
				if leave {
					name += "/LeaveInnerOpen"
					opts = append(opts, sslstream.LeaveInnerOpen())
				}
				t.Run(name, func(t *testing.T) {
					testpki.Bubble(t, func(t *testing.T) {
						f := newFixture(t) // valid in the bubble's time
						a, b := over.make(t)
						client, server := newStream(t, a, opts...), newStream(t, b, opts...)
						done := make(chan error, 1)
						go func() { done <- server.AuthenticateAsServer(context.Background(), f.serverOptions()) }()
						require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
						require.NoError(t, <-done)
						exchange(t, client, server)
						if tc.data {
							client.SetWriteTimeout(time.Second)
							n, err := client.Write([]byte("nobody reads this"))
							require.ErrorIs(t, err, os.ErrDeadlineExceeded)
							assert.Equal(t, 17, n, "accepted")
						}
						began := time.Now()
						err := client.Close()
						assert.LessOrEqual(t, time.Since(began), tc.atMost)
						assert.Equal(t, tc.wantErr, err != nil, "%v", err)
						if tc.wantErr {
							assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
							assert.ErrorContains(t, err, "could be sent")
						}
						a.Close()
						b.Close()
						server.Close()
					})
				})
			}
		}
	}
}

// TestCloseWithoutDataIsNoLoss has a peer that has not taken the session ticket: nothing of the user's is lost with it.
func TestCloseWithoutDataIsNoLoss(t *testing.T) {
	for _, over := range carriers[1:] {
		t.Run(over.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t) // valid in the bubble's time
				a, b := over.make(t)
				client, server := newStream(t, a), newStream(t, b)
				co, so := f.mutual() // so that the ticket is sent on its own
				done := make(chan error, 1)
				go func() { done <- server.AuthenticateAsServer(context.Background(), so) }()
				require.NoError(t, client.AuthenticateAsClient(context.Background(), co))
				require.NoError(t, <-done)
				began := time.Now()
				assert.NoError(t, server.Close())
				assert.LessOrEqual(t, time.Since(began), time.Second)
				a.Close()
				b.Close()
				client.Close()
			})
		})
	}
}

func TestCloseSendsWhatIsQueued(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		t.Run(over.name, func(t *testing.T) {
			client, server := pairOver(t, over, f.clientOptions(), f.serverOptions())
			want := payload(16 << 20)
			client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			n, err := client.Write(want)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			got := make(chan []byte, 1)
			go func() {
				b, err := io.ReadAll(server)
				assert.NoError(t, err)
				got <- b
			}()
			require.NoError(t, client.Close())
			assert.True(t, bytes.Equal(want[:n], <-got))
			assert.True(t, server.ReceivedCloseNotify())
		})
	}
}

// TestNothingFollowsAFatalAlert breaks a record, which makes the receiver send one.
func TestNothingFollowsAFatalAlert(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			a, b := testpki.TCP(t)
			inner := &recorder{Conn: b}
			client, server := newStream(t, a), newStream(t, inner)
			co := f.clientOptions()
			co.EnabledProtocols = v.protocol
			err, serverErr := authenticate(t, client, server, co, f.serverOptions())
			require.NoError(t, errors.Join(err, serverErr))
			exchange(t, client, server)
			_, err = a.Write([]byte{23, 3, 3, 0, 40, 39: 0, 44: 0})
			require.NoError(t, err)
			_, err = server.Read(make([]byte, 1))
			require.ErrorContains(t, err, "bad record MAC")
			_, again := server.Read(make([]byte, 1))
			assert.Equal(t, err, again)
			_, werr := server.Write([]byte("x"))
			assert.ErrorContains(t, werr, "bad record MAC")

			// The client learns it, and nothing else.
			_, err = client.Read(make([]byte, 1))
			assert.ErrorContains(t, err, "bad record MAC")
			_, werr = client.Write([]byte("x"))
			assert.ErrorContains(t, werr, "bad record MAC", "what follows a fatal alert is not sent")
			sent := len(inner.writes)
			assert.NoError(t, server.Close())
			assert.Len(t, inner.writes, sent, "no close_notify after it")
			var ae *sslstream.AuthenticationError
			assert.False(t, errors.As(err, &ae), "the authentication was over")
		})
	}
}

// TestInnerErrorsAreNotFinal has an inner stream that fails once.
func TestInnerErrorsAreNotFinal(t *testing.T) {
	f := newFixture(t)
	hiccup := errors.New("hiccup")
	a, b := testpki.TCP(t)
	inner := &failing{Conn: b}
	client, server := newStream(t, a), newStream(t, inner)
	err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
	require.NoError(t, errors.Join(err, serverErr))
	exchange(t, client, server)

	inner.read, inner.write = hiccup, hiccup
	_, err = server.Read(make([]byte, 1))
	assert.Same(t, hiccup, err)
	n, err := server.Write([]byte("hello"))
	assert.Same(t, hiccup, err)
	assert.Equal(t, 5, n, "accepted")
	require.NoError(t, server.Flush())
	buf := make([]byte, 5)
	_, err = io.ReadFull(client, buf)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(buf))
	exchange(t, client, server)
}

// failing is a connection that returns an error once where it is told to.
type failing struct {
	net.Conn
	read, write error
}

func (c *failing) Read(p []byte) (int, error) {
	if err := c.read; err != nil {
		c.read = nil
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *failing) Write(p []byte) (int, error) {
	if err := c.write; err != nil {
		c.write = nil
		return 0, err
	}
	return c.Conn.Write(p)
}

func TestInnerFlushIsUsed(t *testing.T) {
	f := newFixture(t)
	a, b := testpki.TCP(t)
	ca, cb := newBuffered(a), newBuffered(b)
	client, server := newStream(t, ca), newStream(t, cb)
	err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
	require.NoError(t, errors.Join(err, serverErr), "flights are flushed")
	before := ca.flushes
	_, err = client.Write([]byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, before, ca.flushes, "Write leaves it to the inner stream")
	require.NoError(t, client.Flush())
	buf := make([]byte, 5)
	_, err = io.ReadFull(server, buf)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_, err = server.Read(buf)
	assert.Equal(t, io.EOF, err)
	assert.True(t, server.ReceivedCloseNotify(), "Close flushes")
}

// buffered is a connection that sends only when it is flushed.
type buffered struct {
	net.Conn
	buf     bytes.Buffer
	flushes int
}

func newBuffered(c net.Conn) *buffered { return &buffered{Conn: c} }

func (b *buffered) Write(p []byte) (int, error) { return b.buf.Write(p) }

func (b *buffered) Flush() error {
	b.flushes++
	_, err := b.buf.WriteTo(b.Conn)
	return err
}

// TestInnerDeadlinesAreTakenBack looks at what is set on the inner stream when it is given back.
func TestInnerDeadlinesAreTakenBack(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, client, server *sslstream.Stream)
	}{
		{"Close", func(t *testing.T, client, _ *sslstream.Stream) { require.NoError(t, client.Close()) }},
		{"Unwrap", func(t *testing.T, client, server *sslstream.Stream) {
			go server.Unwrap(testContext(t))
			_, err := client.Unwrap(testContext(t))
			require.NoError(t, err)
		}},
		{"Detach", func(t *testing.T, client, _ *sslstream.Stream) {
			_, err := client.Detach()
			require.NoError(t, err)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := testpki.TCP(t)
			inner := &deadlines{Conn: a}
			client, server := newStream(t, inner, sslstream.LeaveInnerOpen()), newStream(t, b, sslstream.LeaveInnerOpen())
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			client.SetReadTimeout(time.Minute)
			client.SetWriteTimeout(time.Minute)
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(ctx, f.serverOptions()) }()
			require.NoError(t, client.AuthenticateAsClient(ctx, f.clientOptions()))
			require.NoError(t, <-done)
			assert.True(t, inner.read.IsZero() && inner.write.IsZero(), "none is left by the handshake")
			client.SetDeadline(time.Now().Add(time.Hour))
			exchange(t, client, server)
			tc.end(t, client, server)
			assert.True(t, inner.read.IsZero(), "read deadline %v", inner.read)
			assert.True(t, inner.write.IsZero(), "write deadline %v", inner.write)
		})
	}
	t.Run("failed handshake", func(t *testing.T) {
		a, b := testpki.TCP(t)
		go io.Copy(io.Discard, b)
		inner := &deadlines{Conn: a}
		client := newStream(t, inner)
		client.SetDeadline(time.Now().Add(10 * time.Millisecond))
		require.ErrorIs(t, client.AuthenticateAsClient(context.Background(), nil), os.ErrDeadlineExceeded)
		assert.True(t, inner.read.IsZero() && inner.write.IsZero())
	})
	t.Run("never set where none is asked for", func(t *testing.T) {
		a, b := testpki.TCP(t)
		inner := &deadlines{Conn: a}
		client, server := newStream(t, inner), newStream(t, b)
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServer(context.Background(), f.serverOptions()) }()
		require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
		require.NoError(t, <-done)
		exchange(t, client, server)
		assert.Zero(t, inner.set.Load())
	})
}

// TestInnerWithoutWorkingDeadlines has an inner stream with the methods, which only return an error.
func TestInnerWithoutWorkingDeadlines(t *testing.T) {
	f := newFixture(t)
	ended := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("handshake", func(t *testing.T) {
		a, _ := testpki.IOPipes(t)
		err := newStream(t, noDeadlines{a}).AuthenticateAsClient(ended(t), f.clientOptions())
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	a, b := testpki.IOPipes(t)
	client, server := newStream(t, noDeadlines{a}), newStream(t, noDeadlines{b})
	err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
	require.NoError(t, errors.Join(err, serverErr))
	_, err = client.ReadContext(ended(t), make([]byte, 1))
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	client.SetReadTimeout(20 * time.Millisecond)
	_, err = client.Read(make([]byte, 1))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	client.SetReadTimeout(0)
	_, err = client.WriteContext(ended(t), make([]byte, 1<<20))
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// noDeadlines has methods for deadlines but no deadlines, as channels of SSH connections do.
type noDeadlines struct{ io.ReadWriteCloser }

var errNoDeadlines = errors.New("deadline not supported")

func (noDeadlines) SetReadDeadline(time.Time) error  { return errNoDeadlines }
func (noDeadlines) SetWriteDeadline(time.Time) error { return errNoDeadlines }

// deadlines is a connection that remembers its deadlines.
type deadlines struct {
	net.Conn
	read, write time.Time
	set         atomic.Int32
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = t
	d.set.Add(1)
	return d.Conn.SetReadDeadline(t)
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.write = t
	d.set.Add(1)
	return d.Conn.SetWriteDeadline(t)
}

func TestAddressesAreNeverNil(t *testing.T) {
	a, b := testpki.TCP(t)
	s := newStream(t, a)
	assert.Equal(t, a.LocalAddr(), s.LocalAddr())
	assert.Equal(t, b.LocalAddr().String(), s.RemoteAddr().String())
	for _, inner := range []io.ReadWriteCloser{&scripted{}, &nilAddresses{}, nil} {
		s := newStream(t, inner)
		require.NotNil(t, s.LocalAddr())
		require.NotNil(t, s.RemoteAddr())
		assert.NotEmpty(t, s.LocalAddr().Network())
		assert.NotEmpty(t, s.RemoteAddr().String())
	}
	f := newFixture(t)
	co := f.clientOptions()
	co.TargetHost = "" // crypto/tls files sessions under the address then
	co.RemoteCertificateValidationCallback = accept
	client, server := pairOver(t, carriers[2], co, f.serverOptions())
	exchange(t, client, server)
}

type nilAddresses struct{ scripted }

func (*nilAddresses) LocalAddr() net.Addr  { return nil }
func (*nilAddresses) RemoteAddr() net.Addr { return nil }

func TestTimeoutsAreKept(t *testing.T) {
	s := newStream(t, &scripted{})
	assert.Zero(t, s.ReadTimeout())
	assert.Zero(t, s.WriteTimeout())
	s.SetReadTimeout(time.Second)
	s.SetWriteTimeout(time.Minute)
	assert.Equal(t, time.Second, s.ReadTimeout())
	assert.Equal(t, time.Minute, s.WriteTimeout())
	s.SetReadTimeout(-1)
	assert.Zero(t, s.ReadTimeout(), "none")
}

func TestNilContextIsBackground(t *testing.T) {
	f := newFixture(t)
	client, server := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
	var none context.Context
	_, err := client.WriteContext(none, []byte("hello"))
	require.NoError(t, err)
	buf := make([]byte, 5)
	_, err = server.ReadContext(none, buf)
	require.NoError(t, err)
	go server.Unwrap(testContext(t))
	_, err = client.Unwrap(none)
	require.NoError(t, err)
}

// TestTLSInsideTLS wraps a stream in a stream.
func TestTLSInsideTLS(t *testing.T) {
	f := newFixture(t)
	outerClient, outerServer := newPair(t, f.clientOptions(), f.serverOptions())
	client, server := newStream(t, outerClient), newStream(t, outerServer)
	co, so := f.mutual()
	err, serverErr := authenticate(t, client, server, co, so)
	require.NoError(t, errors.Join(err, serverErr))
	exchange(t, client, server)
	assert.NoError(t, client.Close())
	_, err = server.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
	assert.True(t, server.ReceivedCloseNotify())
}
