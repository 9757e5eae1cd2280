package syspolicy

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
)

// maxDepth bounds how deep includes may nest.
const maxDepth = 16

// chunkSize is how many bytes OpenSSL takes from a file at a time (CONFBUFSIZE
// in crypto/conf/conf_def.c, less what fgets keeps for itself). It shows in the
// treatment of NUL bytes and of stray carriage returns only.
const chunkSize = 510

var (
	errNoClosingBracket = errors.New("section header without closing bracket")
	errNoEqualSign      = errors.New("line without equal sign")
	errBadPragma        = errors.New("invalid pragma")
	errRelativeInclude  = errors.New("relative include path")
	errTooDeep          = errors.New("includes nested too deep")
)

// parser reads a configuration the way def_load_bio in crypto/conf/conf_def.c
// does. All files of one configuration share its state: what an included file
// sets, the current section among it, is still set when its includer goes on.
type parser struct {
	files *witness
	conf  *config

	current *input     // nil between two files
	outer   []*input   // includers of current, the main file first
	dir     *directory // the included directory that is being read, if any

	section       string
	includeDir    string // prefix of relative include paths
	hasIncludeDir bool
	dollarIsName  bool // a plain $ belongs to names (.pragma dollarid)
	absoluteOnly  bool // relative include paths are errors (.pragma abspath)
	expansion     int  // bytes that variables have been expanded to
}

// directory is what is left to read of an included directory.
type directory struct {
	path  string
	names []string
}

// parse reads the configuration that starts with the file main.
func parse(files *witness, main *input) (*config, error) {
	main.rest = bytes.TrimPrefix(main.rest, []byte("\xef\xbb\xbf")) // only here, as in OpenSSL
	p := &parser{files: files, conf: newConfig(), current: main, section: defaultSection}
	for {
		line, more, err := p.nextLine()
		if err != nil {
			return nil, err
		}
		if !more {
			return p.conf, nil
		}
		if err := p.parseLine(line); err != nil {
			return nil, err
		}
	}
}

// nextLine returns the next line, continuation lines joined to it, of whatever
// file is at its turn; more is false after the last one.
func (p *parser) nextLine() (line string, more bool, err error) {
	var joined []byte
	for unfinished := false; ; {
		chunk := p.current.nextChunk()
		if len(chunk) == 0 && !unfinished {
			if more, err := p.nextInput(); !more || err != nil {
				return "", false, err
			}
			continue
		}
		text := bytes.TrimRight(chunk, "\r\n")
		unfinished = len(chunk) > 0 && len(text) == len(chunk)
		joined = append(joined, text...)
		if n := len(joined); !unfinished && n > 0 && joined[n-1] == '\\' &&
			(n == 1 || joined[n-2] != '\\') {
			joined = joined[:n-1]
			unfinished = true
		}
		if !unfinished {
			return string(joined), true, nil
		}
	}
}

// nextChunk takes the next piece of the file, up to and with the end of the
// line. Like C it does not see what follows a NUL byte in it, so that a piece
// that starts with one ends the file.
func (in *input) nextChunk() []byte {
	chunk := in.rest[:min(len(in.rest), chunkSize)]
	if end := bytes.IndexByte(chunk, '\n'); end >= 0 {
		chunk = chunk[:end+1]
	}
	in.rest = in.rest[len(chunk):]
	if end := bytes.IndexByte(chunk, 0); end >= 0 {
		chunk = chunk[:end]
	}
	return chunk
}

// nextInput goes on after the end of a file: with the next file of an included
// directory, then with the includer. The end of a file that was included from
// within the directory counts too; its includer must wait until the directory
// is through, in OpenSSL as here.
func (p *parser) nextInput() (more bool, err error) {
	p.current = nil
	if p.dir != nil {
		next, err := p.nextOfDirectory()
		if err != nil {
			return false, err
		}
		if next != nil {
			p.current = next
			return true, nil
		}
	}
	last := len(p.outer) - 1
	if last < 0 { // the main file
		return false, nil
	}
	p.current, p.outer = p.outer[last], p.outer[:last]
	return true, nil
}

// nextOfDirectory returns the next file of p.dir, or nil and no p.dir any more.
// The order is that of the names, where OpenSSL takes whatever order the system
// lists them in.
func (p *parser) nextOfDirectory() (*input, error) {
	for len(p.dir.names) > 0 {
		name := p.dir.names[0]
		p.dir.names = p.dir.names[1:]
		if !isConfigName(name) {
			continue
		}
		path := p.dir.path + "/" + name
		info, err := p.files.stat(path)
		if err != nil {
			return nil, err
		}
		if info == nil {
			continue
		}
		next, err := p.files.read(path, info)
		if err != nil {
			return nil, err
		}
		if next != nil && !p.isOpen(next) {
			return next, nil
		}
	}
	p.dir = nil
	return nil, nil
}

// isConfigName reports whether a file of an included directory is read
// (get_next_file in conf_def.c).
func isConfigName(name string) bool {
	for _, suffix := range []string{".conf", ".cnf"} {
		if stem := len(name) - len(suffix); stem > 0 && strings.EqualFold(name[stem:], suffix) {
			return true
		}
	}
	return false
}

// isOpen reports whether a file is one of those that are being read. Such an
// include is skipped. OpenSSL follows it in circles until it may not open any
// more files, and then goes on; all it gains are the same lines again, with luck
// in another section.
func (p *parser) isOpen(in *input) bool {
	if p.current != nil && os.SameFile(in.info, p.current.info) {
		return true
	}
	for _, outer := range p.outer {
		if os.SameFile(in.info, outer.info) {
			return true
		}
	}
	return false
}

// include starts with reading the file or directory at path. What cannot be
// read is ignored, and so is a directory within a directory (process_include in
// conf_def.c).
func (p *parser) include(path string) error {
	info, err := p.files.stat(path)
	if err != nil || info == nil {
		return err
	}
	var next *input
	switch {
	case !info.IsDir():
		next, err = p.files.read(path, info)
		if next != nil && p.isOpen(next) {
			return nil
		}
	case p.dir == nil:
		var names []string
		if names, err = p.files.list(path, info); err != nil {
			return err
		}
		p.dir = &directory{path: path, names: names}
		next, err = p.nextOfDirectory()
	}
	if err != nil || next == nil {
		return err
	}
	if len(p.outer) == maxDepth {
		return errTooDeep
	}
	p.outer = append(p.outer, p.current)
	p.current = next
	return nil
}

// parseLine carries out one line.
func (p *parser) parseLine(line string) error {
	line = withoutComment(line)
	line = line[skipSpace(line, 0):]
	switch {
	case line == "":
		return nil
	case line[0] == '[':
		return p.parseHeader(line)
	}

	section, start := p.section, 0
	end := p.skipName(line, 0)
	if strings.HasPrefix(line[end:], "::") {
		section, start = line[:end], end+2
		end = p.skipName(line, start)
	}
	name := line[start:end]
	rest := line[skipSpace(line, end):]

	if directive := p.directive(name, line[start:], rest); directive != nil {
		// The equal sign is for the sake of old versions, which take the
		// line for a setting then.
		if at(rest, 0) == '=' {
			rest = rest[1+skipSpace(rest[1:], 0):]
		}
		return directive(section, trimSpaceRight(rest))
	}

	if at(rest, 0) != '=' {
		return errNoEqualSign
	}
	value, err := p.expand(section, trimSpaceRight(rest[1+skipSpace(rest[1:], 0):]))
	if err != nil {
		return err
	}
	p.conf.set(section, name, value)
	return nil
}

// directive returns what carries out the directive that name stands for, or nil
// when it stands for none. text is the line from name on, rest what follows
// name and blank space. OpenSSL compares beginnings only, so that
// ".includes = x" is an include too.
func (p *parser) directive(name, text, rest string) func(section, argument string) error {
	var word string
	var directive func(section, argument string) error
	switch {
	case strings.HasPrefix(name, ".pragma"):
		word, directive = ".pragma", p.pragma
	case strings.HasPrefix(name, ".include"):
		word, directive = ".include", p.includeDirective
	default:
		return nil
	}
	if text[len(word):] == rest && at(rest, 0) != '=' {
		return nil // not even a blank after the word
	}
	return directive
}

// parseHeader carries out a line "[ section ]". The name may consist of several
// words; what follows the bracket does not matter.
func (p *parser) parseHeader(line string) error {
	start := skipSpace(line, 1)
	for word := start; ; {
		end := p.skipName(line, word)
		next := skipSpace(line, end)
		if at(line, next) == ']' {
			name, err := p.expand(defaultSection, line[start:end])
			if err != nil {
				return err
			}
			p.section = name
			p.conf.addSection(name)
			return nil
		}
		if next == len(line) || next == word {
			return errNoClosingBracket
		}
		word = next
	}
}

// pragma carries out ".pragma name:value". Unknown ones are ignored, as
// config(5) has it.
func (p *parser) pragma(_, argument string) error {
	name, value, found := strings.Cut(argument, ":")
	if !found || name == "" || value == "" {
		return errBadPragma
	}
	value = value[skipSpace(value, 0):]
	switch trimSpaceRight(name) {
	case "dollarid":
		return setFlag(&p.dollarIsName, value)
	case "abspath":
		return setFlag(&p.absoluteOnly, value)
	case "includedir":
		p.includeDir, p.hasIncludeDir = value, true
	}
	return nil
}

func setFlag(flag *bool, value string) error {
	switch strings.ToLower(value) {
	case "on", "true":
		*flag = true
	case "off", "false":
		*flag = false
	default:
		return errBadPragma
	}
	return nil
}

// includeDirective carries out ".include path".
func (p *parser) includeDirective(section, argument string) error {
	path, err := p.expand(section, argument)
	if err != nil {
		return err
	}
	// The variable wins over the pragma, even when it is empty; relative
	// paths start at the root directory then.
	dir, found := p.files.getenv("OPENSSL_CONF_INCLUDE")
	if !found {
		dir, found = p.includeDir, p.hasIncludeDir
	}
	if found && !isAbsolute(path) {
		if dir == "" || !isSeparator(dir[len(dir)-1]) {
			dir += "/"
		}
		path = dir + path
	}
	if p.absoluteOnly && !isAbsolute(path) {
		return errRelativeInclude
	}
	return p.include(path)
}

// isAbsolute is ossl_is_absolute_path (include/internal/common.h). It differs
// from filepath.IsAbs on Windows, where it takes "\x" and "C:x" for absolute.
func isAbsolute(path string) bool {
	if runtime.GOOS == "windows" && at(path, 1) == ':' {
		return true
	}
	return path != "" && isSeparator(path[0])
}

func isSeparator(c byte) bool {
	return c == '/' || runtime.GOOS == "windows" && c == '\\'
}
