package syspolicy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseSyntax(t *testing.T) {
	tests := []struct {
		name string
		text string
		// want are the settings, by section and name.
		want map[string]map[string]string
	}{
		{"setting", "a = b\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"no blanks", "a=b", map[string]map[string]string{"default": {"a": "b"}}},
		{"many blanks", " \t a \t = \t b c \t \r\n", map[string]map[string]string{"default": {"a": "b c"}}},
		{"empty value", "a =\nb = \n", map[string]map[string]string{"default": {"a": "", "b": ""}}},
		{"equal sign in value", "a = b = c\n", map[string]map[string]string{"default": {"a": "b = c"}}},
		{"punctuation in name", "!%&*+,-./;?@^_|~9Z = b\n", map[string]map[string]string{"default": {"!%&*+,-./;?@^_|~9Z": "b"}}},
		{"escape in name stays", "a\\ b = c\n", map[string]map[string]string{"default": {"a\\ b": "c"}}},
		{"empty name", "= b\n", map[string]map[string]string{"default": {"": "b"}}},
		{"lines ended in other ways", "a = b\r\nb = c\n\n\r\nc = d\r", map[string]map[string]string{"default": {"a": "b", "b": "c", "c": "d"}}},
		{"not ASCII", "a = \xe9\xff\n", map[string]map[string]string{"default": {"a": "\xe9\xff"}}},

		{"section", "[s]\na = b\n", map[string]map[string]string{"default": {}, "s": {"a": "b"}}},
		{"blanks around section", "  [ \t s \t ]  \na = b\n", map[string]map[string]string{"default": {}, "s": {"a": "b"}}},
		{"section of two words", "[ s  t ]\na = b\n", map[string]map[string]string{"default": {}, "s  t": {"a": "b"}}},
		{"escape in section", "[ s\\]t ]\na = b\n", map[string]map[string]string{"default": {}, "s]t": {"a": "b"}}},
		{"section without name", "[]\na = b\n", map[string]map[string]string{"default": {}, "": {"a": "b"}}},
		{"text after section", "[s] t = u\na = b\n", map[string]map[string]string{"default": {}, "s": {"a": "b"}}},
		{"empty section", "[s]\n", map[string]map[string]string{"default": {}, "s": {}}},
		{"section by name", "[t]\nc = d\n[default]\na = b\n", map[string]map[string]string{"default": {"a": "b"}, "t": {"c": "d"}}},
		{"section of one line", "s::a = b\nc = d\n", map[string]map[string]string{"default": {"c": "d"}, "s": {"a": "b"}}},
		{"default section of one line", "[s]\ndefault::a = b\n", map[string]map[string]string{"default": {"a": "b"}, "s": {}}},

		{"comment", "# a = b\n  # c\na = b # c\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"comment without blank", "a = b#c\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"no comment in quotes", "a = 'b # c' # d\nb = \"#\"\nc = `#`\n", map[string]map[string]string{"default": {"a": "b # c", "b": "#", "c": "#"}}},
		{"no comment after backslash", "a = b \\# c\n", map[string]map[string]string{"default": {"a": "b # c"}}},
		{"comment goes on over lines", "# a \\\nb = c\nd = e\n", map[string]map[string]string{"default": {"d": "e"}}},

		{"quotes", "a = ' b '\nb = \" c \"\nc = ` d `\n", map[string]map[string]string{"default": {"a": " b ", "b": " c ", "c": " d "}}},
		{"quotes within text", "a = b' c 'd\n", map[string]map[string]string{"default": {"a": "b c d"}}},
		{"other quotes within quotes", "a = \"b'c\"\n", map[string]map[string]string{"default": {"a": "b'c"}}},
		{"open quote", "a = 'b \n", map[string]map[string]string{"default": {"a": "b"}}},
		{"open quote, backslash", "a = 'b\\", map[string]map[string]string{"default": {"a": "b"}}},
		{"backslash within quotes", "a = \"b\\\"c\\n\\$d\"\n", map[string]map[string]string{"default": {"a": "b\"cn$d"}}},
		{"no variable within quotes", "a = 'b$c'\n", map[string]map[string]string{"default": {"a": "b$c"}}},
		{"escape sequences", "a = \\n\\r\\b\\t\\x\\\\y\\$\\'\n", map[string]map[string]string{"default": {"a": "\n\r\b\tx\\y$'"}}},
		{"escaped blank at the end", "a = b\\ \n", map[string]map[string]string{"default": {"a": "b"}}},

		{"line goes on", "a = b\\\n  c\\\r\nd\n", map[string]map[string]string{"default": {"a": "b  cd"}}},
		{"line goes on within name", "a\\\nb = c\n", map[string]map[string]string{"default": {"ab": "c"}}},
		{"two backslashes do not go on", "a = b\\\\\nc = d\n", map[string]map[string]string{"default": {"a": "b\\", "c": "d"}}},
		{"three backslashes do not either", "a = b\\\\\\\nc = d\n", map[string]map[string]string{"default": {"a": "b\\", "c": "d"}}},
		{"blank after the backslash", "a = b\\ \nc = d\n", map[string]map[string]string{"default": {"a": "b", "c": "d"}}},
		{"goes on at the end of the file", "a = b\\", map[string]map[string]string{"default": {"a": "b"}}},
		{"long line", "a = " + strings.Repeat("b", 5000) + "\nc = d\n", map[string]map[string]string{
			"default": {"a": strings.Repeat("b", 5000), "c": "d"}}},

		{"byte order mark", "\xef\xbb\xbfa = b\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"byte order mark alone", "\xef\xbb\xbf", map[string]map[string]string{"default": {}}},
		{"NUL hides the rest of a line", "a = b\x00c\nd\n", map[string]map[string]string{"default": {"a": "bd"}}},
		{"NUL at the start of a line ends the file", "a = b\n\x00\n[\n", map[string]map[string]string{"default": {"a": "b"}}},

		{"unknown pragma", ".pragma who:knows\na = b\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"pragma with equal sign", ".pragma = who : knows\na = b\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"longer word for pragma", ".pragmas = who:knows\na = b\n", map[string]map[string]string{"default": {"a": "b"}}},
		{"include without path", ".include \na = b\n", map[string]map[string]string{"default": {"a": "b"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := parseText(t, tt.text)
			require.NoError(t, err)
			assert.Equal(t, tt.want, values(conf))
		})
	}
}

// values returns the settings of a configuration, by section and name.
func values(conf *config) map[string]map[string]string {
	all := make(map[string]map[string]string)
	for section, settings := range conf.sections {
		all[section] = make(map[string]string)
		for name, s := range settings {
			all[section][name] = s.value
		}
	}
	return all
}

func TestParseVariables(t *testing.T) {
	tests := []struct {
		name string
		text string // sets x in section s, or in the default section
		want string
	}{
		{"plain", "a = b\nx = $a\n", "b"},
		{"braces", "a = b\nx = ${a}\n", "b"},
		{"parentheses", "a = b\nx = $(a)\n", "b"},
		{"within text", "a = b\nx = 1$a.2${a}3$(a)4\n", "1b.2b3b4"},
		{"name ends at punctuation", "a = b\nx = $a.c-d\n", "b.c-d"},
		{"current section first", "a = b\n[s]\na = c\nx = $a\n", "c"},
		{"then the default section", "a = b\n[s]\nx = $a\n", "b"},
		{"other section", "[t]\na = b\n[s]\nx = $t::a\n", "b"},
		{"other section in braces", "[t]\na = b\n[s]\nx = ${t::a}\n", "b"},
		{"other section in parentheses", "[t]\na = b\n[s]\nx = $(t::a)\n", "b"},
		{"other section falls back too", "a = b\n[s]\nx = $t::a\n", "b"},
		{"section of one line", "s::a = b\ns::x = $a\n", "b"},
		{"earlier value", "x = b\nx = ${x}c\n", "bc"},
		{"empty name", "= b\nx = ${}\n", "b"},
		{"value is not expanded again", "a = \\$b\nx = $a\n", "$b"},
		{"environment", "x = $ENV::SYSPOLICY_TEST\n", "from outside"},
		{"environment in braces", "x = ${ENV::SYSPOLICY_TEST}\n", "from outside"},
		{"environment, empty", "SYSPOLICY_EMPTY = a\nx = <$ENV::SYSPOLICY_EMPTY>\n", "<>"},
		{"environment, else the default section", "SYSPOLICY_UNSET = a\nx = $ENV::SYSPOLICY_UNSET\n", "a"},
		{"environment, overruled", "ENV::SYSPOLICY_TEST = a\nx = $ENV::SYSPOLICY_TEST\n", "a"},
		{"current section is the environment", "[ENV]\ns::x = $ENV::SYSPOLICY_TEST\n", "from outside"},
		{"dollarid", ".pragma dollarid:on\na = b\nx = $a\n", "$a"},
		{"dollarid, braces", ".pragma dollarid:on\na = b\nx = ${a}$(a)\n", "bb"},
		{"dollarid, dollar in name", ".pragma dollarid : TRUE\na$ = b\nx = ${a$}\n", "b"},
		{"dollarid, dollar in section", ".pragma dollarid:on\n[a$]\nb = c\n[s]\nx = ${a$::b}\n", "c"},
		{"dollarid, off again", ".pragma dollarid:on\n.pragma dollarid:False\na = b\nx = $a\n", "b"},
		{"as long as allowed", "a = " + strings.Repeat("b", 1000) + "\nx = " + strings.Repeat("$a", 65) + "\n",
			strings.Repeat("b", 65000)},
		{"long, but nothing expanded", "x = " + strings.Repeat("b", 70000) + "\n", strings.Repeat("b", 70000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SYSPOLICY_TEST", "from outside")
			t.Setenv("SYSPOLICY_EMPTY", "")
			unsetenv(t, "SYSPOLICY_UNSET")

			conf, err := parseText(t, tt.text)
			require.NoError(t, err)
			got, found := conf.get("s", "x")
			if !found {
				got, found = conf.get(defaultSection, "x")
			}
			require.True(t, found)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name string
		text string
		want error
	}{
		{"no equal sign", "a b\n", errNoEqualSign},
		{"no equal sign after section", "s::a\n", errNoEqualSign},
		{"colon in name", "a:b = c\n", errNoEqualSign},
		{"two sections of one line", "a::b::c = d\n", errNoEqualSign},
		{"quoted name", "'a' = b\n", errNoEqualSign},
		{"name that is not ASCII", "\xe9 = b\n", errNoEqualSign},
		{"byte order mark of UTF-16", "\xff\xfea = b\n", errNoEqualSign},
		{"byte order mark further on", "\n\xef\xbb\xbfa = b\n", errNoEqualSign},
		{"directive alone", ".include\n", errNoEqualSign},
		{"pragma alone", ".pragma", errNoEqualSign},
		{"section not closed", "[s\n", errNoClosingBracket},
		{"section closed in a comment", "[s # ]\n", errNoClosingBracket},
		{"strange character in section", "[a:b]\n", errNoClosingBracket},
		{"dollar in section", "[a$b]\n", errNoClosingBracket},
		{"brace not closed", "a = b\nc = ${a\n", errNoClosingBrace},
		{"brace closed by parenthesis", "a = b\nc = ${a)\n", errNoClosingBrace},
		{"parenthesis not closed", "a = b\nc = $(a b)\n", errNoClosingBrace},
		{"no such variable", "a = $b\n", errNoValue},
		{"no such variable in section", "[s]\nb = c\n[t]\na = $b\n", errNoValue},
		{"no such environment variable", "a = $ENV::SYSPOLICY_UNSET\n", errNoValue},
		{"dollar alone", "a = $\n", errNoValue},
		{"two dollars", "b = c\na = $$b\n", errNoValue},
		{"no such variable in include", ".include $b\n", errNoValue},
		{"pragma without colon", ".pragma dollarid\n", errBadPragma},
		{"pragma without name", ".pragma :on\n", errBadPragma},
		{"pragma without value", ".pragma dollarid:\n", errBadPragma},
		{"dollarid neither on nor off", ".pragma dollarid:yes\n", errBadPragma},
		{"abspath neither on nor off", ".pragma abspath:1\n", errBadPragma},
		{"abspath", ".pragma abspath:on\n.include other.cnf\n", errRelativeInclude},
		{"value too long", "a = " + strings.Repeat("b", 1000) + "\nx = " + strings.Repeat("$a", 66) + "\n", errValueTooLong},
		{"value doubling", "a = b\n" + strings.Repeat("a = $a$a\n", 40), errValueTooLong},
		{"values too long together", "a = " + strings.Repeat("b", 60000) + "\n" + strings.Repeat("x = $a\n", 100), errValueTooLong},
		{"file too large", strings.Repeat("#", maxFileSize+1), errFileTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			unsetenv(t, "SYSPOLICY_UNSET")
			unsetenv(t, "OPENSSL_CONF_INCLUDE")

			// As complete as the configuration may be otherwise, nothing
			// of it counts.
			path := writeFile(t, tt.text, t.TempDir(), "broken.cnf")
			w := newWitness()
			info, err := w.stat(path)
			require.NoError(t, err)
			_, err = w.rangeOf(path, info)
			require.ErrorIs(t, err, tt.want)

			useConfig(t, writeFile(t, toCommands+"MinProtocol = TLSv1.2\n[default]\n"+tt.text, t.TempDir(), "openssl.cnf"))
			assert.Equal(t, Range{}, Current())
		})
	}
}

func TestParseLargestFile(t *testing.T) {
	text := toCommands + "MinProtocol = TLSv1.2\n"
	text += strings.Repeat("#", maxFileSize-len(text))
	conf, err := parseText(t, text)
	require.NoError(t, err)
	assert.Equal(t, uint16(0x0303), conf.tlsRange().Min)
}
