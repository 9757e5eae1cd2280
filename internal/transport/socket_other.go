//go:build !unix

package transport

// socketWriter is for systems on which a socket can be written to without waiting.
type socketWriter struct{}

func newSocketWriter(any) *socketWriter { return nil }

func (*socketWriter) write([]byte) (int, error) { return 0, nil }
