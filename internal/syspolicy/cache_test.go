package syspolicy

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two configurations of the same size.
const (
	minTLS12 = toCommands + "MinProtocol = TLSv1.2\n"
	minTLS13 = toCommands + "MinProtocol = TLSv1.3\n"
)

func TestCurrentIsCached(t *testing.T) {
	dir := t.TempDir()
	useConfig(t, writeFile(t, minTLS12, dir, "openssl.cnf"))
	age(t, filepath.Join(dir, "openssl.cnf"))

	want := Range{Min: tls.VersionTLS12}
	require.Equal(t, want, Current())
	parsed := cached()
	require.Equal(t, want, Current())
	assert.Same(t, parsed, cached())
}

// TestCurrentLooksOnceInAWhile has a file that has been as it is for long, and one that has not.
func TestCurrentLooksOnceInAWhile(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old.cnf"), filepath.Join(dir, "new.cnf")
	writeOldFiles(t, dir, map[string]string{"old.cnf": minTLS12})
	writeFile(t, minTLS12, dir, "new.cnf")
	useConfig(t, old)
	lookEvery = time.Hour

	require.Equal(t, Range{Min: tls.VersionTLS12}, Current())
	writeFile(t, minTLS13, dir, "old.cnf")
	assert.Equal(t, Range{Min: tls.VersionTLS12}, Current(), "not looked at again yet")
	lookEvery = 0
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
	lookEvery = time.Hour

	t.Setenv("OPENSSL_CONF", fresh)
	assert.Equal(t, Range{Min: tls.VersionTLS12}, Current(), "the variable is looked at every time")
	writeFile(t, minTLS13, dir, "new.cnf")
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current(), "a file that has just changed is, too")
}

func TestCurrentOfMissingFileIsCached(t *testing.T) {
	useConfig(t, filepath.Join(t.TempDir(), "missing.cnf"))
	require.Equal(t, Range{}, Current())
	parsed := cached()
	require.Equal(t, Range{}, Current())
	assert.Same(t, parsed, cached())
}

func TestCurrentSeesChange(t *testing.T) {
	dot12, dot13 := Range{Min: tls.VersionTLS12}, Range{Min: tls.VersionTLS13}
	// Every case starts with a directory in which all files are old.
	tests := []struct {
		name   string
		files  map[string]string // openssl.cnf is the configuration
		before Range
		change func(t *testing.T, dir string)
		after  Range
	}{
		{
			"file written again, same size",
			map[string]string{"openssl.cnf": minTLS12}, dot12,
			func(t *testing.T, dir string) { writeFile(t, minTLS13, dir, "openssl.cnf") }, dot13,
		},
		{
			"file written again, same time",
			map[string]string{"openssl.cnf": minTLS12}, dot12,
			func(t *testing.T, dir string) { age(t, writeFile(t, minTLS13+"# longer\n", dir, "openssl.cnf")) }, dot13,
		},
		{
			"file with older time",
			map[string]string{"openssl.cnf": minTLS12}, dot12,
			func(t *testing.T, dir string) {
				path := writeFile(t, minTLS13, dir, "openssl.cnf")
				require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-24*time.Hour)))
			}, dot13,
		},
		{
			"file replaced, same size and time",
			map[string]string{"openssl.cnf": minTLS12, "new.cnf": minTLS13}, dot12,
			func(t *testing.T, dir string) {
				sameTime(t, filepath.Join(dir, "openssl.cnf"), filepath.Join(dir, "new.cnf"))
				require.NoError(t, os.Rename(filepath.Join(dir, "new.cnf"), filepath.Join(dir, "openssl.cnf")))
			}, dot13,
		},
		{
			"file created",
			nil, Range{},
			func(t *testing.T, dir string) { age(t, writeFile(t, minTLS13, dir, "openssl.cnf")) }, dot13,
		},
		{
			"file removed",
			map[string]string{"openssl.cnf": minTLS12}, dot12,
			func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "openssl.cnf"))) }, Range{},
		},
		{
			"file replaced by a directory",
			map[string]string{"openssl.cnf": minTLS12}, dot12,
			func(t *testing.T, dir string) {
				path := filepath.Join(dir, "openssl.cnf")
				require.NoError(t, os.Remove(path))
				require.NoError(t, os.Mkdir(path, 0o755))
			}, Range{},
		},
		{
			"broken file mended",
			map[string]string{"openssl.cnf": minTLS12 + "["}, Range{},
			func(t *testing.T, dir string) { writeFile(t, minTLS12+"#", dir, "openssl.cnf") }, dot12,
		},
		{
			"included file written again",
			map[string]string{"openssl.cnf": toCommands + ".include DIR/x\n", "x": "MinProtocol = TLSv1.2\n"}, dot12,
			func(t *testing.T, dir string) { writeFile(t, "MinProtocol = TLSv1.3\n", dir, "x") }, dot13,
		},
		{
			"included file created",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/x\n"}, dot12,
			func(t *testing.T, dir string) { age(t, writeFile(t, "MinProtocol = TLSv1.3\n", dir, "x")) }, dot13,
		},
		{
			"included file created, its directory too",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/d/x\n"}, dot12,
			func(t *testing.T, dir string) { age(t, writeFile(t, "MinProtocol = TLSv1.3\n", dir, "d", "x")) }, dot13,
		},
		{
			"included file removed",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/x\n", "x": "1.MinProtocol = TLSv1.3\n"}, dot13,
			func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "x"))) }, dot12,
		},
		{
			"file created in included directory",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/d\n", "d/x": ""}, dot12,
			func(t *testing.T, dir string) { age(t, writeFile(t, "MinProtocol = TLSv1.3\n", dir, "d", "x.cnf")) }, dot13,
		},
		{
			"file removed from included directory",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/d\n", "d/x.cnf": "1.MinProtocol = TLSv1.3\n"}, dot13,
			func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "d", "x.cnf"))) }, dot12,
		},
		{
			"file of included directory written again",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/d\n", "d/x.cnf": "1.MinProtocol = TLSv1.2\n"}, dot12,
			func(t *testing.T, dir string) { writeFile(t, "1.MinProtocol = TLSv1.3\n", dir, "d", "x.cnf") }, dot13,
		},
		{
			"included directory created",
			map[string]string{"openssl.cnf": minTLS12 + ".include DIR/d\n"}, dot12,
			func(t *testing.T, dir string) { age(t, writeFile(t, "MinProtocol = TLSv1.3\n", dir, "d", "x.cnf")) }, dot13,
		},
		{
			"OPENSSL_CONF",
			map[string]string{"openssl.cnf": minTLS12, "other.cnf": minTLS13}, dot12,
			func(t *testing.T, dir string) { t.Setenv("OPENSSL_CONF", filepath.Join(dir, "other.cnf")) }, dot13,
		},
		{
			"OPENSSL_CONF_INCLUDE",
			map[string]string{
				"openssl.cnf": toCommands + ".pragma includedir:DIR/a\n.include x\n",
				"a/x":         "MinProtocol = TLSv1.2\n", "b/x": "MinProtocol = TLSv1.3\n",
			}, dot12,
			func(t *testing.T, dir string) { t.Setenv("OPENSSL_CONF_INCLUDE", filepath.Join(dir, "b")) }, dot13,
		},
		{
			"variable in a value",
			map[string]string{"openssl.cnf": toCommands + "MinProtocol = TLSv1.$ENV::SYSPOLICY_TEST\n"}, dot12,
			func(t *testing.T, _ string) { t.Setenv("SYSPOLICY_TEST", "3") }, dot13,
		},
		{
			"variable that was not set",
			map[string]string{"openssl.cnf": "SYSPOLICY_UNSET = TLSv1.2\n" + toCommands + "MinProtocol = $ENV::SYSPOLICY_UNSET\n"}, dot12,
			func(t *testing.T, _ string) { t.Setenv("SYSPOLICY_UNSET", "TLSv1.3") }, dot13,
		},
		{
			"variable that was missing",
			map[string]string{"openssl.cnf": minTLS12 + "x = $ENV::SYSPOLICY_UNSET\n"}, Range{},
			func(t *testing.T, _ string) { t.Setenv("SYSPOLICY_UNSET", "") }, dot12,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "variable that was missing" && runtime.GOOS == "windows" {
				t.Skip("Windows does not know empty environment variables")
			}
			unsetenv(t, "OPENSSL_CONF_INCLUDE")
			unsetenv(t, "SYSPOLICY_UNSET")
			t.Setenv("SYSPOLICY_TEST", "2")
			dir := t.TempDir()
			useConfig(t, filepath.Join(dir, "openssl.cnf"))
			writeOldFiles(t, dir, tt.files)

			require.Equal(t, tt.before, Current())
			require.Equal(t, tt.before, Current())
			tt.change(t, dir)
			assert.Equal(t, tt.after, Current())
			assert.Equal(t, tt.after, Current(), "again")
		})
	}
}

// A file that is written twice within one tick of the file system's clock keeps
// its time. Setting the time back plays that case on any file system.
func TestCurrentSeesChangeWithinTick(t *testing.T) {
	tests := []struct {
		name string
		age  time.Duration // of the first version when it is read
	}{
		{"just written", 0},
		{"written a moment ago", settleTime / 2},
		{"written in the future", -time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, minTLS12, t.TempDir(), "openssl.cnf")
			useConfig(t, path)
			written := time.Now().Add(-tt.age)
			require.NoError(t, os.Chtimes(path, written, written))
			require.Equal(t, Range{Min: tls.VersionTLS12}, Current())

			writeFile(t, minTLS13, path)
			require.NoError(t, os.Chtimes(path, written, written))
			assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
		})
	}
}

// A crypto policy is switched by a symbolic link, and the files it may point to
// come from one package, with one time.
func TestCurrentSeesSwitchedLink(t *testing.T) {
	dir := t.TempDir()
	a := writeFile(t, minTLS12, dir, "a.cnf")
	b := writeFile(t, minTLS13, dir, "b.cnf")
	age(t, a)
	sameTime(t, a, b)
	link := filepath.Join(dir, "openssl.cnf")
	if err := os.Symlink(a, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	useConfig(t, link)

	require.Equal(t, Range{Min: tls.VersionTLS12}, Current())
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink(b, link))
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
}

func TestCurrentSeesPermission(t *testing.T) {
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		t.Skip("file modes do not keep this user from reading")
	}
	path := writeFile(t, minTLS12, t.TempDir(), "openssl.cnf")
	age(t, path)
	useConfig(t, path)

	require.NoError(t, os.Chmod(path, 0))
	assert.Equal(t, Range{}, Current())
	require.NoError(t, os.Chmod(path, 0o600))
	assert.Equal(t, Range{Min: tls.VersionTLS12}, Current())
	require.NoError(t, os.Chmod(path, 0))
	assert.Equal(t, Range{}, Current())
}

func TestCurrentSeesEarlierUsualPlace(t *testing.T) {
	forget(t)
	unsetenv(t, "OPENSSL_CONF")
	dir := t.TempDir()
	usual := usualFiles
	usualFiles = []string{filepath.Join(dir, "a.cnf"), filepath.Join(dir, "b.cnf")}
	t.Cleanup(func() { usualFiles = usual })

	age(t, writeFile(t, minTLS12, dir, "b.cnf"))
	require.Equal(t, Range{Min: tls.VersionTLS12}, Current())
	age(t, writeFile(t, minTLS13, dir, "a.cnf"))
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
}

func TestCurrentConcurrently(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, minTLS12, dir, "openssl.cnf")
	useConfig(t, path)

	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 100 {
				assert.Contains(t, []uint16{tls.VersionTLS12, tls.VersionTLS13}, Current().Min)
			}
		})
	}
	for i := range 50 {
		text := minTLS12
		if i%2 == 0 {
			text = minTLS13
		}
		next := writeFile(t, text, dir, "next.cnf")
		if i%4 < 2 {
			age(t, next) // lets the cache take part
		}
		// Windows does not replace a file that someone has open.
		if err := os.Rename(next, path); runtime.GOOS != "windows" {
			require.NoError(t, err)
		}
	}
	readers.Wait()

	writeFile(t, minTLS13+"# the last word\n", path)
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
}

func BenchmarkCurrentCached(b *testing.B) {
	dir := b.TempDir()
	useConfig(b, filepath.Join(dir, "openssl.cnf"))
	unsetenv(b, "OPENSSL_CONF_INCLUDE")

	benchmarks := []struct {
		name  string
		files map[string]string
	}{
		{"missing file", nil},
		{"one file", map[string]string{"openssl.cnf": minTLS12}},
		{"file and include", map[string]string{
			"openssl.cnf": toCommands + ".include DIR/x\n", "x": "MinProtocol = TLSv1.2\n",
		}},
	}
	for _, bb := range benchmarks {
		b.Run(bb.name, func(b *testing.B) {
			forget(b)
			writeOldFiles(b, dir, bb.files)
			want := Current()
			parsed := cached()
			b.ReportAllocs()
			for b.Loop() {
				if Current() != want {
					b.Fatal("the answer changed")
				}
			}
			require.Same(b, parsed, cached())
		})
	}
}

func BenchmarkCurrentUncached(b *testing.B) {
	dir := b.TempDir()
	useConfig(b, writeFile(b, minTLS12, dir, "openssl.cnf"))
	b.ReportAllocs()
	for b.Loop() {
		load()
	}
}
