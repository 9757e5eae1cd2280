package sslstream_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/sslstream/sslstream"
)

// TestErrorIsOneLine has a server's client send a name that would look like another line of a log.
func TestErrorIsOneLine(t *testing.T) {
	for name, want := range map[string]string{
		"server.example":      "sslstream: authentication as server (server.example): no",
		"münchen.example":     "sslstream: authentication as server (münchen.example): no",
		"x\nlistening on y\n": `sslstream: authentication as server ("x\nlistening on y\n"): no`,
	} {
		err := &sslstream.AuthenticationError{Server: true, TargetHost: name, Err: errors.New("no")}
		assert.Equal(t, want, err.Error())
	}
}
