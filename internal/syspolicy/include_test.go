package syspolicy

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInclude(t *testing.T) {
	type settings = map[string]map[string]string
	tests := []struct {
		name  string
		files map[string]string // "main" is where it starts; DIR is where they are
		want  settings
	}{
		{
			"file",
			map[string]string{"main": "a = b\n.include DIR/x\nc = d\n", "x": "e = f\n"},
			settings{"default": {"a": "b", "c": "d", "e": "f"}},
		},
		{
			"equal sign",
			map[string]string{"main": ".include = DIR/x\n.include=DIR/y\n", "x": "a = b\n", "y": "c = d\n"},
			settings{"default": {"a": "b", "c": "d"}},
		},
		{
			"longer word",
			map[string]string{"main": ".includes = DIR/x\n", "x": "a = b\n"},
			settings{"default": {"a": "b"}},
		},
		{
			"quoted and escaped path, comment",
			map[string]string{"main": ".include \"DIR/x y\" # z\n.include DIR/\\z\n", "x y": "a = b\n", "z": "c = d\n"},
			settings{"default": {"a": "b", "c": "d"}},
		},
		{
			"variables in path",
			map[string]string{
				"main": "dir = DIR\n[s]\nname = x\n.include $dir/$name\n[t]\nname = y\n.include ${dir}/${s::name}2\n",
				"x":    "a = b\n", "x2": "c = d\n",
			},
			settings{"default": {"dir": "DIR"}, "s": {"name": "x", "a": "b"}, "t": {"name": "y", "c": "d"}},
		},
		{
			"variable of another section in path",
			map[string]string{"main": "s::name = DIR/x\ns::.include $name\n", "x": "a = b\n"},
			settings{"default": {"a": "b"}, "s": {"name": "DIR/x"}},
		},
		{
			"file starts in the section of its includer",
			map[string]string{"main": "[s]\n.include DIR/x\n", "x": "a = b\n"},
			settings{"default": {}, "s": {"a": "b"}},
		},
		{
			"includer goes on in the section of the file",
			map[string]string{"main": "[s]\n.include DIR/x\na = b\n", "x": "[t]\nc = d\n"},
			settings{"default": {}, "s": {}, "t": {"a": "b", "c": "d"}},
		},
		{
			"variables and pragmas cross files",
			map[string]string{"main": "a = b\n.include DIR/x\ne = $a$c\n", "x": "c = $a\n.pragma dollarid:on\n"},
			settings{"default": {"a": "b", "c": "b", "e": "$a$c"}},
		},
		{
			"continuation ends with the file",
			map[string]string{"main": ".include DIR/x\nc = d\n", "x": "a = b\\"},
			settings{"default": {"a": "b", "c": "d"}},
		},
		{
			"nested",
			map[string]string{"main": ".include DIR/x\na = b\n", "x": ".include DIR/sub/y\nc = d\n", "sub/y": "e = f\n"},
			settings{"default": {"a": "b", "c": "d", "e": "f"}},
		},
		{
			"twice",
			map[string]string{"main": ".include DIR/x\n[s]\n.include DIR/x\n", "x": "a = b\n"},
			settings{"default": {"a": "b"}, "s": {"a": "b"}},
		},
		{
			"missing",
			map[string]string{"main": ".include DIR/x\n.include DIR/x/y\na = b\n"},
			settings{"default": {"a": "b"}},
		},
		{
			"directory",
			map[string]string{
				"main":       ".include DIR/d\na = b\n",
				"d/1.cnf":    "1 = cnf\nlast = 1\n",
				"d/2.conf":   "2 = conf\nlast = 2\n",
				"d/3.CNF":    "3 = CNF\nlast = 3\n",
				"d/.4.conf":  "4 = hidden\nlast = 4\n",
				"d/5.config": "5 = config\n",
				"d/6cnf":     "6 = cnf\n",
				"d/.cnf":     "7 = cnf\n",
				"d/.conf":    "8 = conf\n",
				"d/9.cnf/x":  "9 = directory\n",
			},
			settings{"default": {"a": "b", "1": "cnf", "2": "conf", "3": "CNF", "4": "hidden", "last": "3"}},
		},
		{
			"directory shares the section",
			map[string]string{
				"main": ".include DIR/d\na = b\n", "d/1.cnf": "[s]\n", "d/2.cnf": "c = d\n[t]\n",
			},
			settings{"default": {}, "s": {"c": "d"}, "t": {"a": "b"}},
		},
		{
			"empty directory",
			map[string]string{"main": ".include DIR/d\n.include DIR/e\na = b\n", "d/x": "c = d\n", "e/x.cnf": "e = f\n"},
			settings{"default": {"a": "b", "e": "f"}},
		},
		{
			"directory after directory",
			map[string]string{"main": ".include DIR/d\n.include DIR/e\n", "d/x.cnf": "a = b\n", "e/x.cnf": "c = d\n"},
			settings{"default": {"a": "b", "c": "d"}},
		},
		{
			"directory within directory",
			map[string]string{"main": ".include DIR/d\na = b\n", "d/x.cnf": ".include DIR/e\nc = d\n", "e/x.cnf": "e = f\n"},
			settings{"default": {"a": "b", "c": "d"}},
		},
		{
			"file within directory: its includer waits for the rest of the directory",
			map[string]string{
				"main":    ".include DIR/d\nlast = main\n",
				"d/1.cnf": ".include DIR/x\norder = ${order}1\nlast = 1\n",
				"d/2.cnf": "order = ${order}2\n",
				"x":       "order = x\n",
			},
			settings{"default": {"order": "x21", "last": "main"}},
		},
		{
			"self",
			map[string]string{"main": ".include DIR/main\na = b\n"},
			settings{"default": {"a": "b"}},
		},
		{
			"cycle",
			map[string]string{
				"main": ".include DIR/x\na = b\n", "x": ".include DIR/y\nc = d\n", "y": ".include DIR/main\n.include DIR/x\ne = f\n",
			},
			settings{"default": {"a": "b", "c": "d", "e": "f"}},
		},
		{
			"cycle with directory",
			map[string]string{"main.cnf": "", "main": ".include DIR/d\na = b\n", "d/x.cnf": ".include DIR/main\n.include DIR/d/x.cnf\nc = d\n"},
			settings{"default": {"a": "b", "c": "d"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			unsetenv(t, "OPENSSL_CONF_INCLUDE")
			dir := filepath.ToSlash(t.TempDir())
			for name, content := range tt.files {
				writeFile(t, strings.ReplaceAll(content, "DIR", dir), dir, name)
			}
			conf, err := parseFile(t, filepath.Join(dir, "main"))
			require.NoError(t, err)
			got := values(conf)
			for _, settings := range got {
				for name := range settings {
					settings[name] = strings.ReplaceAll(settings[name], dir, "DIR")
				}
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestIncludeRelative(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	for _, name := range []string{"cwd", "pragma", "variable"} {
		writeFile(t, "found = "+name+"\n", dir, name, "x.cnf")
	}
	rootCounterpart := strings.TrimPrefix(dir, "/") // DIR as seen from the root

	tests := []struct {
		name     string
		variable string // of OPENSSL_CONF_INCLUDE
		set      bool
		text     string
		want     string
	}{
		{"working directory", "", false, ".include x.cnf\n", "cwd"},
		{"pragma", "", false, ".pragma includedir:DIR/pragma\n.include x.cnf\n", "pragma"},
		{"pragma, separator at the end", "", false, ".pragma includedir: DIR/pragma/ \n.include x.cnf\n", "pragma"},
		{"pragma, itself relative", "", false, ".pragma includedir:../pragma\n.include x.cnf\n", "pragma"},
		{"last pragma counts", "", false, ".pragma includedir:DIR\n.pragma includedir:DIR/pragma\n.include x.cnf\n", "pragma"},
		{"variable", dir + "/variable", true, ".include x.cnf\n", "variable"},
		{"variable before pragma", dir + "/variable", true, ".pragma includedir:DIR/pragma\n.include x.cnf\n", "variable"},
		{"absolute path with pragma", "", false, ".pragma includedir:DIR/pragma\n.include DIR/cwd/x.cnf\n", "cwd"},
		{"absolute path with variable", dir + "/variable", true, ".include DIR/cwd/x.cnf\n", "cwd"},
		{"abspath and absolute path", "", false, ".pragma abspath:on\n.include DIR/pragma/x.cnf\n", "pragma"},
		{"abspath and pragma", "", false, ".pragma abspath:on\n.pragma includedir:DIR/pragma\n.include x.cnf\n", "pragma"},
		{"abspath off", "", false, ".pragma abspath:on\n.pragma abspath:off\n.include x.cnf\n", "cwd"},
		{"pragma does not expand variables", "", false, "d = DIR\n.pragma includedir:$d/pragma\n.include x.cnf\n", ""},
		{"empty variable means the root directory", "", true, ".include x.cnf\n", ""},
		{"empty variable, path from the root", "", true, ".include ROOTED/pragma/x.cnf\n", "pragma"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.set && tt.variable == "" && runtime.GOOS == "windows" {
				t.Skip("Windows does not know empty environment variables")
			}
			unsetenv(t, "OPENSSL_CONF_INCLUDE")
			if tt.set {
				t.Setenv("OPENSSL_CONF_INCLUDE", tt.variable)
			}
			t.Chdir(filepath.Join(dir, "cwd"))

			text := strings.NewReplacer("DIR", dir, "ROOTED", rootCounterpart).Replace(tt.text)
			conf, err := parseText(t, text)
			require.NoError(t, err)
			got, _ := conf.get(defaultSection, "found")
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestIncludeUnreadable(t *testing.T) {
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		t.Skip("file modes do not keep this user from reading")
	}
	dir := t.TempDir()
	file := writeFile(t, "a = x\n", dir, "x")
	require.NoError(t, os.Chmod(file, 0))
	listed := filepath.Dir(writeFile(t, "a = y\n", dir, "d", "y.cnf"))
	require.NoError(t, os.Chmod(listed, 0))
	t.Cleanup(func() { _ = os.Chmod(listed, 0o755) }) // for the removal of dir

	conf, err := parseText(t, "a = b\n.include "+file+"\n.include "+listed+"\n")
	require.NoError(t, err)
	assert.Equal(t, map[string]map[string]string{"default": {"a": "b"}}, values(conf))
}

func TestIncludeBounds(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	// chain-n nests n files below itself.
	for n := range maxDepth + 2 {
		text := fmt.Sprintf("level = %d\n", n)
		if n > 0 {
			text = fmt.Sprintf(".include %s/chain-%d\n", dir, n-1)
		}
		writeFile(t, text, dir, fmt.Sprintf("chain-%d", n))
	}
	writeFile(t, "a = b\n", dir, "plain")
	writeFile(t, strings.Repeat("#", maxFileSize+1), dir, "large")
	for n := range maxFiles {
		writeFile(t, "a = b\n", dir, "many", fmt.Sprintf("%d.cnf", n))
	}
	for n := range maxDirEntries + 1 {
		writeFile(t, "", dir, "crowd", fmt.Sprintf("%d", n))
	}
	repeat := func(path string, n int) string {
		return strings.Repeat(".include "+dir+"/"+path+"\n", n)
	}

	tests := []struct {
		name string
		text string
		want error
	}{
		{"deepest", repeat(fmt.Sprintf("chain-%d", maxDepth-1), 1), nil},
		{"too deep", repeat(fmt.Sprintf("chain-%d", maxDepth), 1), errTooDeep},
		{"most files", repeat("plain", maxFiles-1), nil},
		{"too many files", repeat("plain", maxFiles), errTooManyFiles},
		{"too many files in a directory", repeat("many", 1), errTooManyFiles},
		{"too many names in a directory", repeat("crowd", 1), errTooManyFiles},
		{"most missing files", repeat("missing", maxPaths-1), nil},
		{"too many missing files", repeat("missing", maxPaths), errTooManyFiles},
		{"file too large", repeat("large", 1), errFileTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := toCommands + "MinProtocol = TLSv1.2\n" + tt.text
			_, err := parseText(t, text)
			require.ErrorIs(t, err, tt.want)

			want := Range{}
			if tt.want == nil {
				want.Min = tls.VersionTLS12
			}
			useConfig(t, writeFile(t, text, t.TempDir(), "openssl.cnf"))
			assert.Equal(t, want, Current())
		})
	}
}

func TestIsAbsolute(t *testing.T) {
	windows := runtime.GOOS == "windows"
	tests := []struct {
		name, path string
		want       bool
	}{
		{"empty", "", false},
		{"relative", "a/b", false},
		{"absolute", "/a", true},
		{"backslash", `\a`, windows},
		{"drive", `C:\a`, windows},
		{"drive, relative", "C:a", windows},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, isAbsolute(tt.path))
		})
	}
}
