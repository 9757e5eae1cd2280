// Package transport turns any io.ReadWriteCloser into the net.Conn that crypto/tls wants, and keeps what the
// two disagree about away from both: crypto/tls breaks when a write times out, reads past the last record, and wants
// deadlines and addresses; an inner stream may have none of these, may be synchronous, and may live on after TLS.
//
// crypto/tls writes into a queue, which never fails, and reads record by record. Its caller decides when the queue
// is sent, and bounds each call in a direction between Begin and End. Calls of one direction must not overlap, except
// those of Close and of the deadlines.
package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// Conn is an inner stream with what crypto/tls needs and what its caller needs.
type Conn struct {
	// What each call looks at lies together.
	handshaking bool // crypto/tls's reads send what it queued before
	received    bool // inner gave any byte at all
	socket      bool // inner is the kernel's socket, which takes a flight without its peer reading
	read        reader
	write       writer

	inner                     io.ReadWriteCloser
	readTimeout, writeTimeout time.Duration // of each read and send while handshaking; 0: none
}

// New wraps inner. exact says that no byte may be read from inner beyond the current record.
func New(inner io.ReadWriteCloser, exact bool) *Conn {
	c := &Conn{inner: inner}
	c.read.inner, c.read.exact, c.write.inner = inner, exact, inner
	c.write.flusher, _ = inner.(interface{ Flush() error })
	if c.write.flusher == nil {
		c.write.socket = newSocketWriter(inner)
	}
	sure := false
	switch inner.(type) {
	case *net.TCPConn, *net.UnixConn:
		sure = true
	}
	if d, ok := inner.(interface{ SetReadDeadline(time.Time) error }); ok {
		c.read.limits.use(d.SetReadDeadline, sure)
	}
	if d, ok := inner.(interface{ SetWriteDeadline(time.Time) error }); ok {
		c.write.limits.use(d.SetWriteDeadline, sure)
	}
	_, c.socket = inner.(syscall.Conn)
	return c
}

// IsSocket reports whether inner is the kernel's socket, which takes some bytes without its peer reading.
func (c *Conn) IsSocket() bool { return c.socket }

// TLS is the side for crypto/tls.
func (c *Conn) TLS() net.Conn { return (*tlsSide)(c) }

// BeginRead starts a call that reads, which ends with ctx or after timeout (0: never). EndRead must
// follow, also after an error.
func (c *Conn) BeginRead(ctx context.Context, timeout time.Duration) error {
	return c.read.limits.begin(ctx, timeout)
}

// EndRead ends it. What reading queued, the answer to a key update or an alert, is sent by a goroutine.
func (c *Conn) EndRead() {
	c.read.limits.end()
	if c.write.replies.Load() {
		c.write.kick(nil)
	}
}

// Replied reports whether crypto/tls wrote anything but the user's data since it was asked last.
func (c *Conn) Replied() bool { return c.write.replied.Swap(false) }

// BeginWrite starts a call that writes; see BeginRead. EndWrite must follow, also after an error.
func (c *Conn) BeginWrite(ctx context.Context, timeout time.Duration) error {
	return c.write.limits.begin(ctx, timeout)
}

// EndWrite ends it.
func (c *Conn) EndWrite() { c.write.limits.end() }

// BeginData tells that what crypto/tls writes until EndData, size bytes of plaintext, is the user's data.
func (c *Conn) BeginData(size int) { c.write.data.Store(int32(size)) }

// EndData ends that.
func (c *Conn) EndData() { c.write.data.Store(0) }

// Ready reports whether crypto/tls could read a record of the user's data without inner being read.
func (c *Conn) Ready() bool { return c.read.ready() }

// Send sends what is queued, by this call or an earlier one. An error of a limit or of inner leaves the rest queued.
func (c *Conn) Send() error {
	if !c.write.left.Load() {
		return nil
	}
	return c.write.send(false)
}

// Flush is Send, and has inner send what it keeps in a buffer of its own.
func (c *Conn) Flush() error { return c.write.send(true) }

// Unsent is how many bytes are queued; busy says that some are being sent.
func (c *Conn) Unsent() (n int, busy bool) { return c.write.queued() }

// UnsentData reports whether some of it is the user's data.
func (c *Conn) UnsentData() bool {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	return c.write.hasData && c.write.queue.len() > 0
}

// StopWriting drops what crypto/tls writes from now on: nothing may follow a close_notify.
func (c *Conn) StopWriting() {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	c.write.discard = true
}

// SetReadDeadline bounds the calls that read, those under way included.
func (c *Conn) SetReadDeadline(t time.Time) { c.read.limits.setDeadline(t) }

// SetWriteDeadline bounds the calls that write, those under way included. What reading queued and could not be sent by an
// earlier deadline is sent, because nobody else may ever do it.
func (c *Conn) SetWriteDeadline(t time.Time) {
	c.write.limits.setDeadline(t)
	if c.write.replies.Load() {
		c.write.kick(nil)
	}
}

// EOF reports whether crypto/tls was told that inner ended.
func (c *Conn) EOF() bool { return c.read.eof }

// Boundary reports whether nothing was read from inner that was not handed over, no Read of it is under way,
// and the last record is complete.
func (c *Conn) Boundary() bool {
	return c.read.pending == nil && c.read.ahead.len() == 0 && !c.read.record.inside()
}

// Received reports whether inner gave any byte at all.
func (c *Conn) Received() bool { return c.received }

// Interrupt ends all calls with err, those under way and those to come; nil lets calls be made again.
func (c *Conn) Interrupt(err error) {
	c.read.limits.close(err)
	c.write.limits.close(err)
}

// Finish sends what is queued, for d at the most, whatever the deadlines say. No call that writes may be under way.
func (c *Conn) Finish(d time.Duration) error {
	c.write.limits.close(nil)
	c.write.limits.setDeadline(time.Time{})
	err := c.write.limits.begin(context.Background(), d)
	if err == nil {
		err = c.write.send(true)
	}
	c.write.limits.end()
	c.write.limits.close(net.ErrClosed)
	return err
}

// Release takes back what was set on inner, and the buffers. No call may be under way.
func (c *Conn) Release() {
	c.read.limits.release()
	c.write.limits.release()
	c.read.release()
	c.write.release()
}

// Handshake runs f, which makes crypto/tls shake hands, as a call in both directions that ends with ctx; the
// timeouts are those of each read and of each send in it. While it runs each read first sends what is queued. Cause tells an
// error of inner or of a limit.
func (c *Conn) Handshake(ctx context.Context, readTimeout, writeTimeout time.Duration, f func() error) error {
	defer func() {
		c.read.limits.end()
		c.read.limits.settle()
		c.write.limits.end()
		c.write.limits.settle()
	}()
	if err := c.write.limits.beginBounded(ctx, writeTimeout); err != nil {
		return temporary{err}
	}
	if err := c.read.limits.beginBounded(ctx, readTimeout); err != nil {
		return temporary{err}
	}
	c.handshaking, c.readTimeout, c.writeTimeout = true, readTimeout, writeTimeout
	defer func() { c.handshaking = false }()
	return f()
}

// Flight sends what a handshake queued, and waits for it. It belongs into a Handshake.
func (c *Conn) Flight() error {
	if c.writeTimeout > 0 {
		c.write.limits.setTimeout(c.writeTimeout)
	}
	if err := c.write.send(true); err != nil {
		return temporary{err}
	}
	return nil
}

// Post sends what a handshake queued, and waits for nobody.
func (c *Conn) Post() { c.write.kick(nil) }

// Farewell sends what a failed handshake queued, its alert, for d at most. A peer on a synchronous inner stream may be
// writing itself and read nothing before; so what it sends meanwhile is read and dropped, where reading can be stopped
// again.
func (c *Conn) Farewell(d time.Duration) {
	if n, _ := c.write.queued(); n == 0 {
		return
	}
	defer c.write.limits.end()
	defer c.read.limits.end()
	if c.write.limits.beginBounded(context.Background(), d) != nil || c.read.limits.beginBounded(context.Background(), d) != nil {
		return
	}
	if c.socket || !c.read.limits.native.Load() {
		c.write.send(true)
		return
	}
	call := c.read.limits.call()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.write.send(true)
		c.read.limits.fail(call, errDone)
	}()
	for buf := make([]byte, 1024); ; {
		if _, err := c.read.read(buf); err != nil {
			break
		}
	}
	<-sent
}

var errDone = errors.New("sslstream: internal error: sent")

// Dry runs f, which makes crypto/tls read, while inner gives nothing.
func (c *Conn) Dry(f func() (int, error)) (int, error) {
	c.read.dry = true
	defer func() { c.read.dry = false }()
	return f()
}

// flight sends what is queued before crypto/tls waits for its peer. Where inner may wait for the peer to read, it
// must not be waited for: the peer may first want us to read.
func (c *Conn) flight() error {
	if n, _ := c.write.queued(); n == 0 {
		return nil
	}
	if c.socket {
		return c.Flight()
	}
	if c.writeTimeout > 0 {
		c.write.limits.setTimeout(c.writeTimeout)
	}
	call := c.read.limits.call()
	c.write.kick(func(err error) { c.read.limits.fail(call, err) })
	return nil
}

// tlsSide is the net.Conn that crypto/tls gets.
type tlsSide Conn

// Read reads at most the rest of the current record.
func (t *tlsSide) Read(p []byte) (int, error) {
	c := (*Conn)(t)
	if c.handshaking {
		if c.readTimeout > 0 {
			c.read.limits.setTimeout(c.readTimeout)
		}
		if err := c.flight(); err != nil {
			return 0, err
		}
	} else if c.write.replies.Load() { // the answer to a key update, or a renegotiation
		if n, _ := c.write.queued(); n > batchSlab+maxReplies {
			return 0, temporary{errTooManyReplies}
		}
		c.write.kick(nil)
	}
	n, err := c.read.read(p)
	if n > 0 && !c.received {
		c.received = true
	}
	if err != nil && err != io.EOF {
		err = temporary{err}
	}
	return n, err
}

// Write queues p.
func (t *tlsSide) Write(p []byte) (int, error) { return t.write.write(p) }

// Close does nothing: crypto/tls calls it when a handshake's context ends, which must not close inner.
func (t *tlsSide) Close() error { return nil }

// The deadlines that crypto/tls sets for its alerts mean nothing to a queue.
func (t *tlsSide) SetDeadline(time.Time) error      { return nil }
func (t *tlsSide) SetReadDeadline(time.Time) error  { return nil }
func (t *tlsSide) SetWriteDeadline(time.Time) error { return nil }

func (t *tlsSide) LocalAddr() net.Addr  { return (*Conn)(t).LocalAddr() }
func (t *tlsSide) RemoteAddr() net.Addr { return (*Conn)(t).RemoteAddr() }

// temporary keeps crypto/tls from making an error of inner's permanent: the records before it were handed over
// whole, so reading can go on where it stopped.
type temporary struct{ error }

func (temporary) Timeout() bool   { return false }
func (temporary) Temporary() bool { return true }
func (t temporary) Unwrap() error { return t.error }

// Cause takes an error of inner or of a limit that came through crypto/tls back to what it was. fault says that err is
// one; else it is crypto/tls's own, and cause is err.
func Cause(err error) (cause error, fault bool) {
	var t temporary
	if errors.As(err, &t) {
		return t.error, true
	}
	return err, false
}

// LocalAddr is inner's address, or a placeholder; never nil.
func (c *Conn) LocalAddr() net.Addr {
	if a, ok := c.inner.(interface{ LocalAddr() net.Addr }); ok {
		if addr := a.LocalAddr(); addr != nil {
			return addr
		}
	}
	return placeholder{}
}

// RemoteAddr is inner's address, or a placeholder; never nil.
func (c *Conn) RemoteAddr() net.Addr {
	if a, ok := c.inner.(interface{ RemoteAddr() net.Addr }); ok {
		if addr := a.RemoteAddr(); addr != nil {
			return addr
		}
	}
	return placeholder{}
}

// placeholder stands for the address of an inner stream that has none.
type placeholder struct{}

func (placeholder) Network() string { return "sslstream" }
func (placeholder) String() string  { return "no address" }
