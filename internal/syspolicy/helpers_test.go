package syspolicy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// toCommands leads OpenSSL to the section "commands", which is left open.
const toCommands = `openssl_conf = modules
[modules]
ssl_conf = contexts
[contexts]
system_default = commands
[commands]
`

// writeFile makes a file and returns its path.
func writeFile(t testing.TB, content string, elements ...string) string {
	t.Helper()
	path := filepath.Join(elements...)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// age gives paths a modification time that is trusted.
func age(t testing.TB, paths ...string) {
	t.Helper()
	hourAgo := time.Now().Add(-time.Hour)
	for _, path := range paths {
		require.NoError(t, os.Chtimes(path, hourAgo, hourAgo))
	}
}

// parseFile reads the configuration file at path.
func parseFile(t testing.TB, path string) (*config, error) {
	t.Helper()
	w := newWitness()
	info, err := w.stat(path)
	require.NoError(t, err)
	require.NotNil(t, info)
	main, err := w.read(path, info)
	require.NoError(t, err)
	require.NotNil(t, main)
	return parse(w, main)
}

// parseText reads a configuration of one file.
func parseText(t testing.TB, text string) (*config, error) {
	t.Helper()
	return parseFile(t, writeFile(t, text, t.TempDir(), "openssl.cnf"))
}

// useConfig makes Current start with an empty cache, and with the file at path
// as the administrator's configuration.
func useConfig(t testing.TB, path string) {
	t.Helper()
	forget(t)
	t.Setenv("OPENSSL_CONF", path)
}

// forget empties the cache, now and after the test, and has every look look at the files.
func forget(t testing.TB) {
	t.Helper()
	every := lookEvery
	lookEvery = 0
	t.Cleanup(func() { lookEvery = every })
	empty := func() {
		cache.Lock()
		defer cache.Unlock()
		cache.last = nil
	}
	empty()
	t.Cleanup(empty)
}

// unsetenv removes an environment variable for the time of the test.
func unsetenv(t testing.TB, name string) {
	t.Helper()
	t.Setenv(name, "") // puts the old value back in the end
	require.NoError(t, os.Unsetenv(name))
}

// cached returns the snapshot in the cache.
func cached() *snapshot {
	cache.Lock()
	defer cache.Unlock()
	return cache.last
}

// writeOldFiles makes files in dir, DIR in their content standing for it, and
// gives them and their directories a modification time that is trusted.
func writeOldFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		writeFile(t, strings.ReplaceAll(content, "DIR", filepath.ToSlash(dir)), dir, name)
	}
	for name := range files {
		age(t, filepath.Join(dir, name), filepath.Dir(filepath.Join(dir, name)))
	}
}

// sameTime gives the file at path the modification time of the one at model.
func sameTime(t testing.TB, model, path string) {
	t.Helper()
	info, err := os.Stat(model)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}
