package syspolicy

import (
	"errors"
	"strings"
)

// maxValue bounds a value with variables expanded in it
// (MAX_CONF_VALUE_LENGTH in crypto/conf/conf_def.c); maxExpansion bounds what
// all variables together expand to, since many lines can each fill maxValue.
const (
	maxValue     = 64 << 10
	maxExpansion = 4 << 20
)

var (
	errNoClosingBrace = errors.New("variable without closing brace")
	errNoValue        = errors.New("variable has no value")
	errValueTooLong   = errors.New("variable expansion too long")
)

// The classes of characters come from the table of default types in
// crypto/conf/conf_def.h. It knows ASCII only, whatever the locale.

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\r' || c == '\n'
}

func isQuote(c byte) bool {
	return c == '"' || c == '\'' || c == '`'
}

// isVariableChar tells what names of variables consist of.
func isVariableChar(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c == '_'
}

// isNameChar tells what names of settings and sections consist of.
func isNameChar(c byte) bool {
	return isVariableChar(c) || strings.IndexByte("!%&*+,-./;?@^|~", c) >= 0
}

// at returns the byte of s at i, 0 past the end; lines do not contain NUL.
func at(s string, i int) byte {
	if i < len(s) {
		return s[i]
	}
	return 0
}

// skipSpace returns the first position from i on without blank space.
func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}

func trimSpaceRight(s string) string {
	return strings.TrimRight(s, " \t\r\n")
}

// skipEscape returns the position after the escape sequence at i.
func skipEscape(s string, i int) int {
	return min(i+2, len(s))
}

// skipQuoted returns the position after the quotation that starts at i; an open
// one ends with the line.
func skipQuoted(s string, i int) int {
	quote := s[i]
	for i++; i < len(s); i++ {
		switch s[i] {
		case quote:
			return i + 1
		case '\\':
			i++
		}
	}
	return len(s)
}

// withoutComment cuts a comment off a line. A # in quotes or after a backslash
// does not start one.
func withoutComment(line string) string {
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == '#':
			return line[:i]
		case isQuote(c):
			i = skipQuoted(line, i)
		case c == '\\':
			i = skipEscape(line, i)
		default:
			i++
		}
	}
	return line
}

// skipName returns the first position from i on that is not part of a name.
func (p *parser) skipName(s string, i int) int {
	for i < len(s) {
		switch c := s[i]; {
		case c == '\\':
			i = skipEscape(s, i)
		case isNameChar(c) || c == '$' && p.dollarIsName:
			i++
		default:
			return i
		}
	}
	return i
}

// expand resolves quotes, escape sequences and variables in a value (str_copy
// in crypto/conf/conf_def.c). section is where variables are looked up first.
func (p *parser) expand(section, raw string) (string, error) {
	var value strings.Builder
	// OpenSSL checks an estimate of the length, and only where a variable
	// is expanded; the estimate starts with the raw text and its NUL.
	length := len(raw) + 1
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case isQuote(c):
			end := skipQuoted(raw, i)
			writeQuoted(&value, raw[i:end])
			i = end
		case c == '\\':
			if i+1 < len(raw) {
				value.WriteByte(unescape(raw[i+1]))
			}
			i = skipEscape(raw, i)
		case c == '$' && (!p.dollarIsName || at(raw, i+1) == '{' || at(raw, i+1) == '('):
			text, end, err := p.variable(section, raw, i)
			if err != nil {
				return "", err
			}
			length += len(text) - (end - i)
			p.expansion += len(text)
			if length > maxValue || p.expansion > maxExpansion {
				return "", errValueTooLong
			}
			value.WriteString(text)
			i = end
		default:
			value.WriteByte(c)
			i++
		}
	}
	return value.String(), nil
}

// writeQuoted writes what a quotation stands for. Within it a backslash takes
// the special meaning from the next character, and gives none.
func writeQuoted(value *strings.Builder, quotation string) {
	quote := quotation[0]
	for i := 1; i < len(quotation); i++ {
		switch c := quotation[i]; c {
		case quote:
			return
		case '\\':
			if i++; i < len(quotation) {
				value.WriteByte(quotation[i])
			}
		default:
			value.WriteByte(c)
		}
	}
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 'b':
		return '\b'
	case 't':
		return '\t'
	}
	return c
}

// variable returns the value of the variable reference that starts at i, and
// the position after it.
func (p *parser) variable(section, raw string, i int) (text string, end int, err error) {
	i++
	var closing byte
	switch at(raw, i) {
	case '{':
		closing = '}'
	case '(':
		closing = ')'
	}
	if closing != 0 {
		i++
	}
	end = p.skipVariable(raw, i)
	if strings.HasPrefix(raw[end:], "::") {
		section = raw[i:end]
		i = end + 2
		end = p.skipVariable(raw, i)
	}
	name := raw[i:end]
	if closing != 0 {
		if at(raw, end) != closing {
			return "", 0, errNoClosingBrace
		}
		end++
	}
	text, found := p.lookup(section, name)
	if !found {
		return "", 0, errNoValue
	}
	return text, end, nil
}

func (p *parser) skipVariable(s string, i int) int {
	for i < len(s) && (isVariableChar(s[i]) || s[i] == '$' && p.dollarIsName) {
		i++
	}
	return i
}

// lookup finds the value of a variable: in its section, in the environment if
// that section is ENV, in the default section (_CONF_get_string in
// crypto/conf/conf_api.c).
func (p *parser) lookup(section, name string) (value string, found bool) {
	if value, found = p.conf.get(section, name); found {
		return value, true
	}
	if section == envSection {
		if value, found = p.files.getenv(name); found {
			return value, true
		}
	}
	return p.conf.get(defaultSection, name)
}
