package sslstream_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// tail is an inner stream that sends some plain text in the same Write as what it is told about, as a peer does that has
// it ready. It counts what is read and written.
type tail struct {
	io.ReadWriteCloser
	plain         []byte // goes out with the next Write
	read, written int
}

func (c *tail) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.read += n
	return n, err
}

func (c *tail) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(append(p[:len(p):len(p)], c.plain...))
	c.written += n
	c.plain = nil
	return min(n, len(p)), err
}

// TestPlainTextInTheSameWriteAsCloseNotify has three sessions one after another on one connection. Each side's close_notify
// comes together with plain text, and not a byte is lost or added.
func TestPlainTextInTheSameWriteAsCloseNotify(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			t.Run(over.name+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.EnabledProtocols = v.protocol
				a, b := over.make(t)
				ends := [2]*tail{{ReadWriteCloser: a}, {ReadWriteCloser: b}}
				data, text := payload(100<<10), payload(3000)
				side := func(i int) error {
					end := ends[i]
					var inner io.ReadWriteCloser = end
					if c, ok := end.ReadWriteCloser.(net.Conn); ok {
						inner = struct {
							*tail
							deadliner
						}{end, c}
					}
					for session := range 3 {
						s := newStream(t, inner, sslstream.LeaveInnerOpen())
						var err error
						if i == 0 {
							err = s.AuthenticateAsClient(testContext(t), co)
						} else {
							err = s.AuthenticateAsServer(testContext(t), so)
						}
						if err != nil {
							return err
						}
						// The session's data, first one way and then the other: so nothing but close_notify is left to be written.
						for way := range 2 {
							if way == i {
								if _, err := s.Write(data); err != nil {
									return err
								}
								continue
							}
							got := make([]byte, len(data))
							if _, err := io.ReadFull(s, got); err != nil {
								return err
							}
							if !bytes.Equal(got, data) {
								return errors.New("other data")
							}
						}
						plain := text[:1000*(session+1)]
						got := make([]byte, len(plain))
						// Over a synchronous pipe such a Write ends when the peer has read the plain text, for which it has to have the
						// inner stream back. So only the side that goes second can do it there.
						second := i == session%2
						if second {
							if _, err := s.Read(got); err != io.EOF {
								return errors.Join(errors.New("no end"), err)
							}
						}
						together := second || over.name == "tcp"
						if together {
							end.plain = plain
						}
						if _, err := s.Unwrap(testContext(t)); err != nil {
							return err
						}
						written := make(chan error, 1)
						go func() {
							var err error
							if !together {
								_, err = inner.Write(plain)
							}
							written <- err
						}()
						if _, err := io.ReadFull(inner, got); err != nil {
							return err
						}
						if !bytes.Equal(got, plain) {
							return errors.New("other plain text")
						}
						if err := <-written; err != nil {
							return err
						}
					}
					return nil
				}
				done := make(chan error, 1)
				go func() { done <- side(1) }()
				require.NoError(t, side(0))
				require.NoError(t, <-done)
				assert.Equal(t, ends[0].written, ends[1].read)
				assert.Equal(t, ends[1].written, ends[0].read)
			})
		}
	}
}
