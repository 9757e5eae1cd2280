//go:build !unix

package transport

// socketReader is for systems on which a socket can be waited for without memory.
type socketReader struct{}

func newSocketReader(any) *socketReader { return nil }

func (*socketReader) read(*buffer) (int, error) { panic("sslstream: internal error: no socket reader") }
