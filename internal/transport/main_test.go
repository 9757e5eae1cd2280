package transport

import (
	"fmt"
	"os"
	"testing"
)

// TestMain fails the run where a test leaves a buffer behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if n := BuffersInUse(); code == 0 && n != 0 {
		fmt.Fprintf(os.Stderr, "%d buffers left behind\n", n)
		code = 1
	}
	os.Exit(code)
}
