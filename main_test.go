package sslstream_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sslstream/sslstream/internal/transport"
)

// TestMain fails the run where a goroutine or a buffer of ours outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(0); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		} else if n := transport.BuffersInUse(); n != 0 {
			fmt.Fprintf(os.Stderr, "%d buffers left behind\n", n)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that run this module's code, once they have had time to end; besides is 1 where the
// caller's own, which comes first, does not count.
func leaked(besides int) string {
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		left = nil
		for _, stack := range strings.Split(string(buf), "\n\n")[besides:] {
			if strings.Contains(stack, "github.com/sslstream/sslstream") && !strings.Contains(stack, "TestMain") {
				left = append(left, stack)
			}
		}
		if left == nil {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}
