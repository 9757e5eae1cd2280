package syspolicy

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParse looks for configurations that the parser does not survive. The
// first file can include the second one, and itself.
func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	f.Setenv("OPENSSL_CONF_INCLUDE", dir)
	f.Setenv("SYSPOLICY_TEST", "TLSv1.2")

	f.Add([]byte(minTLS12), []byte{})
	f.Add([]byte(toCommands+".include x.cnf\n"), []byte(redHatBackend))
	f.Add([]byte(toCommands+".include main.cnf\n.include x.cnf\nMaxProtocol = SSLv3\n"), []byte(".include main.cnf\n"))
	f.Add([]byte(toCommands+".include .\n.include = x.cnf\n"), []byte("TLS.MinProtocol = $ENV::SYSPOLICY_TEST\n[x"))
	f.Add([]byte("\xef\xbb\xbf.pragma dollarid:on\na$ = 'b' \\# \"c\\\"\n[ s t ]\ns::x = ${a$}$(default::a$)`\\`\n"), []byte{})
	f.Add([]byte("a = b\\\nc\\\\\na = $a$a\n= \\\n\x00\n"), []byte("\r\n\r"))
	f.Add([]byte(redHatConfig), []byte(".pragma abspath:on\n.pragma includedir:x\n"))

	known := []uint16{0, versionSSL30, 0x0301, 0x0302, 0x0303, 0x0304}
	f.Fuzz(func(t *testing.T, main, included []byte) {
		path := writeFile(t, string(main), dir, "main.cnf")
		writeFile(t, string(included), dir, "x.cnf")
		w := newWitness()
		info, err := w.stat(path)
		require.NoError(t, err)
		allowed, err := w.rangeOf(path, info)
		if err != nil && allowed != (Range{}) {
			t.Errorf("range %v of a broken file", allowed)
		}
		if !slices.Contains(known, allowed.Max) || allowed.Min == versionSSL30 || !slices.Contains(known, allowed.Min) {
			t.Errorf("unknown version in range %v", allowed)
		}
	})
}
