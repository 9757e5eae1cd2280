package testpki

import (
	"crypto/fips140"
	"testing"
	"testing/synctest"
)

// Bubble is synctest.Test, which it skips in FIPS 140-3 mode: there crypto/rand gets its entropy by measuring time, which does not
// pass in a bubble, and panics.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("FIPS 140-3 mode has no entropy where time stands still")
	}
	synctest.Test(t, f)
}
