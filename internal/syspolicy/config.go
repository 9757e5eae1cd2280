package syspolicy

import (
	"cmp"
	"crypto/tls"
	"slices"
	"strings"
)

// Names that OpenSSL gives a meaning to.
const (
	defaultSection = "default" // where the lines before any [section] go
	envSection     = "ENV"     // the environment seen as a section
)

// versionSSL30 is what SSLv3 is called on the wire; the constant of crypto/tls
// for it is deprecated.
const versionSSL30 = 0x0300

// config is a parsed configuration: sections of settings.
type config struct {
	sections map[string]map[string]setting
	settings int // how many were made so far, replaced ones included
}

// setting is one "name = value".
type setting struct {
	name, value string
	order       int // rank among all settings of the configuration
}

func newConfig() *config {
	c := &config{sections: make(map[string]map[string]setting)}
	c.addSection(defaultSection)
	return c
}

func (c *config) addSection(name string) map[string]setting {
	section, known := c.sections[name]
	if !known {
		section = make(map[string]setting)
		c.sections[name] = section
	}
	return section
}

// set makes a setting. One of the same name in the same section is forgotten
// altogether, its place in the order too (_CONF_add_string in
// crypto/conf/conf_api.c).
func (c *config) set(section, name, value string) {
	c.settings++
	c.addSection(section)[name] = setting{name: name, value: value, order: c.settings}
}

// get returns a setting of exactly that section.
func (c *config) get(section, name string) (value string, found bool) {
	s, found := c.sections[section][name]
	return s.value, found
}

// inOrder returns the settings of a section in the order of the file.
func (c *config) inOrder(section string) []setting {
	settings := make([]setting, 0, len(c.sections[section]))
	for _, s := range c.sections[section] {
		settings = append(settings, s)
	}
	slices.SortFunc(settings, func(a, b setting) int { return cmp.Compare(a.order, b.order) })
	return settings
}

// tlsRange follows openssl_conf, ssl_conf and system_default to the commands
// that OpenSSL applies to every new SSL_CTX, and carries them out.
func (c *config) tlsRange() Range {
	modules, found := c.get(defaultSection, "openssl_conf")
	if !found {
		return Range{}
	}
	var allowed Range
	for _, module := range c.inOrder(modules) {
		// "ssl_conf.2" runs the module again (module_find in
		// crypto/conf/conf_mod.c). Modules of other kinds are taken to
		// succeed; whether they do cannot be known from here.
		name := module.name
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			name = name[:dot]
		}
		if name != "ssl_conf" {
			continue
		}
		var ok bool
		if allowed, ok = c.sslModule(module.value); !ok {
			return Range{}
		}
	}
	return allowed
}

// sslModule reads a section that ssl_conf names. As in ssl_module_init
// (crypto/conf/conf_ssl.c) every entry of it must name a section that is not
// empty, system_default or not, or nothing of it counts.
func (c *config) sslModule(section string) (allowed Range, ok bool) {
	entries := c.inOrder(section)
	for _, entry := range entries {
		if len(c.sections[entry.value]) == 0 {
			return Range{}, false
		}
		if entry.name == "system_default" {
			allowed = commandRange(c.inOrder(entry.value))
		}
	}
	return allowed, len(entries) > 0
}

// commandRange carries out the commands of a system_default section. OpenSSL
// goes on after a command that fails (ssl_do_config in ssl/ssl_mcnf.c).
func commandRange(commands []setting) Range {
	var allowed Range
	for _, command := range commands {
		// What stands before the first dot serves to tell lines apart
		// that would replace each other otherwise (conf_ssl.c).
		name := command.name
		if _, after, found := strings.Cut(name, "."); found {
			name = after
		}
		version, ok := tlsVersion(command.value)
		switch {
		case !ok:
		case strings.EqualFold(name, "MinProtocol"):
			allowed.Min = version
		case strings.EqualFold(name, "MaxProtocol"):
			allowed.Max = version
		}
	}
	// Nothing older than SSLv3 exists that a minimum could forbid. As a
	// maximum it forbids all that crypto/tls can do.
	if allowed.Min == versionSSL30 {
		allowed.Min = 0
	}
	return allowed
}

// tlsVersion knows the names of protocol_from_string (ssl/ssl_conf.c). The DTLS
// ones are not there: for TLS, OpenSSL accepts them and does nothing
// (ssl_set_version_bound in ssl/statem/statem_lib.c).
func tlsVersion(name string) (version uint16, ok bool) {
	switch name {
	case "None":
		return 0, true
	case "SSLv3":
		return versionSSL30, true
	case "TLSv1":
		return tls.VersionTLS10, true
	case "TLSv1.1":
		return tls.VersionTLS11, true
	case "TLSv1.2":
		return tls.VersionTLS12, true
	case "TLSv1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
}
