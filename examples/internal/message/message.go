// Package message reads the messages of the classic pair from SslStream's documentation, which end in "<EOF>".
package message

import (
	"bytes"
	"fmt"
	"io"
)

// End ends a message.
const End = "<EOF>"

const maxSize = 64 << 10

// Read reads one message and returns it without its end.
func Read(r io.Reader) (string, error) {
	var text []byte
	for buf := make([]byte, 2048); ; {
		n, err := r.Read(buf)
		text = append(text, buf[:n]...)
		if before, _, found := bytes.Cut(text, []byte(End)); found {
			return string(before), nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if len(text) > maxSize {
			return "", fmt.Errorf("the message has no %s within %d octets", End, maxSize)
		}
	}
}
