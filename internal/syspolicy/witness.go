package syspolicy

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds on what is read. A configuration beyond one of them is taken for
// broken, and does not narrow anything.
const (
	maxFileSize   = 1 << 20 // bytes in one file
	maxFiles      = 64      // files read, the main one included
	maxPaths      = 256     // paths examined, missing ones included
	maxDirEntries = 4096    // names in an included directory
)

// settleTime is the age a file must have reached when it is read before its
// size and modification time are trusted to tell the next change: a younger one
// may be written again without its time moving on. FAT counts in steps of two
// seconds, every other file system in finer ones.
const settleTime = 2 * time.Second

var (
	errFileTooLarge = errors.New("configuration file too large")
	errTooManyFiles = errors.New("too many configuration files")
)

// evidence is everything outside this process's memory that an answer depends
// on.
type evidence struct {
	env   map[string]envSeen
	paths []pathSeen

	// looked is when the paths were last as they were seen.
	looked atomic.Int64 // since the process began

	// unsettled is set when the state of one of the paths cannot prove that
	// its content is still what was read.
	unsettled bool
}

// envSeen is the value of an environment variable, or its absence.
type envSeen struct {
	value string
	set   bool
}

// pathSeen is the state of a path; info is nil when nothing was there.
type pathSeen struct {
	path string
	info fs.FileInfo
}

// valid reports whether everything is still as it was seen.
func (e *evidence) valid() bool {
	if e.unsettled {
		return false
	}
	for name, seen := range e.env {
		value, set := lookupEnv(name)
		if value != seen.value || set != seen.set {
			return false
		}
	}
	now := time.Since(began)
	if now-time.Duration(e.looked.Load()) < lookEvery {
		return true
	}
	for _, seen := range e.paths {
		info, err := os.Stat(seen.path)
		if err != nil {
			info = nil
		}
		if !sameState(seen.info, info) {
			return false
		}
	}
	e.looked.Store(int64(now))
	return true
}

var (
	began = time.Now()

	// lookEvery is how long an answer is good for without a look at the
	// files: a busy server would spend more on that than on a part of the
	// handshake itself.
	lookEvery = time.Second
)

// sameState reports whether two looks at a path saw the same thing. Size and
// time are not enough: a crypto policy is switched by pointing a symbolic link
// to another file of the same package, and packages are built with all times
// alike. The mode tells when a file stops being readable. What the size of a
// directory is depends on how one asks for it on Windows.
func sameState(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return (a.IsDir() || a.Size() == b.Size()) &&
		a.ModTime().Equal(b.ModTime()) &&
		a.Mode() == b.Mode() &&
		os.SameFile(a, b)
}

// witness reads files and variables for the parser and keeps the evidence.
type witness struct {
	evidence
	files int // how many were read
}

func newWitness() *witness {
	w := &witness{evidence: evidence{env: make(map[string]envSeen)}}
	w.looked.Store(int64(time.Since(began)))
	return w
}

// getenv returns an environment variable; one load sees one value of it.
func (w *witness) getenv(name string) (value string, set bool) {
	seen, known := w.env[name]
	if !known {
		seen.value, seen.set = lookupEnv(name)
		w.env[name] = seen
	}
	return seen.value, seen.set
}

// stat returns the state of path, nil when nothing can be seen there.
func (w *witness) stat(path string) (fs.FileInfo, error) {
	if len(w.paths) == maxPaths {
		return nil, errTooManyFiles
	}
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	w.paths = append(w.paths, pathSeen{path: path, info: info})
	return info, nil
}

// open opens what stat saw at path, nil when that is not possible.
func (w *witness) open(path string, info fs.FileInfo) *os.File {
	if time.Since(info.ModTime()) < settleTime {
		w.unsettled = true
	}
	file, err := os.Open(path)
	if err != nil {
		// What keeps it from being read may go away without leaving a
		// trace in its state.
		w.unsettled = true
		return nil
	}
	// Another file may have taken the place since.
	if opened, err := file.Stat(); err != nil || !sameState(info, opened) {
		w.unsettled = true
	}
	return file
}

// input is a file that is being parsed.
type input struct {
	info fs.FileInfo
	rest []byte
}

// read returns the file that stat saw at path, nil when it cannot be read. Only
// regular files are: a pipe or a terminal would block, and would not give the
// same again.
func (w *witness) read(path string, info fs.FileInfo) (*input, error) {
	if !info.Mode().IsRegular() {
		return nil, nil
	}
	if w.files == maxFiles {
		return nil, errTooManyFiles
	}
	file := w.open(path, info)
	if file == nil {
		return nil, nil
	}
	defer func() { _ = file.Close() }() // nothing was written

	w.files++
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		w.unsettled = true
		return nil, nil
	}
	if len(content) > maxFileSize {
		return nil, errFileTooLarge
	}
	return &input{info: info, rest: content}, nil
}

// list returns the names in the directory that stat saw at path, sorted.
func (w *witness) list(path string, info fs.FileInfo) ([]string, error) {
	dir := w.open(path, info)
	if dir == nil {
		return nil, nil
	}
	defer func() { _ = dir.Close() }() // nothing was written

	names, err := dir.Readdirnames(maxDirEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		w.unsettled = true
		return nil, nil
	}
	if len(names) > maxDirEntries {
		return nil, errTooManyFiles
	}
	slices.Sort(names)
	return names, nil
}
