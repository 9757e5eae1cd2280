// Package syspolicy answers one question: which TLS protocol versions does the
// administrator's OpenSSL configuration allow?
//
// It reads openssl.cnf the way OpenSSL 3 does, because that file is where
// distributions and administrators write down the system-wide policy (Red
// Hat's crypto-policies, Debian's MinProtocol). Only the commands MinProtocol
// and MaxProtocol of the system_default section are looked at; the older
// Protocol command and the cipher lists are not.
package syspolicy

import (
	"io/fs"
	"os"
	"runtime"
	"sync"
)

// Range is a range of TLS protocol versions. Min and Max are crypto/tls version
// numbers such as tls.VersionTLS12; 0 means no limit. A Max of 0x0300 (SSLv3)
// or a Max below Min leaves no version at all.
type Range struct{ Min, Max uint16 }

// usualFiles lists where OpenSSL builds look for their configuration when
// OPENSSL_CONF is not set, in the order in which they are tried.
var usualFiles = usualFilesOn(runtime.GOOS)

// usualFilesOn keeps the systems apart: on Windows a path like /usr/lib/ssl
// means a directory on the current drive that any user may create
// (CVE-2019-1552), and on macOS /etc/ssl belongs to the LibreSSL of the system,
// which must not hide the OpenSSL that the administrator installed.
func usualFilesOn(goos string) []string {
	switch goos {
	case "windows":
		return []string{
			`C:\Program Files\Common Files\SSL\openssl.cnf`,
			`C:\Program Files (x86)\Common Files\SSL\openssl.cnf`,
		}
	case "darwin":
		return []string{
			"/opt/homebrew/etc/openssl@3/openssl.cnf",
			"/usr/local/etc/openssl@3/openssl.cnf",
			"/usr/local/ssl/openssl.cnf",
			"/etc/ssl/openssl.cnf",
		}
	case "freebsd":
		return []string{
			"/etc/ssl/openssl.cnf",
			"/usr/local/openssl/openssl.cnf",
		}
	default:
		return []string{
			"/usr/lib/ssl/openssl.cnf",   // Debian, Ubuntu
			"/etc/ssl/openssl.cnf",       // Debian, Alpine, SUSE
			"/etc/pki/tls/openssl.cnf",   // Red Hat, Fedora
			"/usr/local/ssl/openssl.cnf", // OpenSSL built from source
		}
	}
}

// cache holds the newest snapshot. The lock guards the pointer only; snapshots
// do not change once they are here, so files are examined without the lock.
var cache struct {
	sync.Mutex
	last *snapshot
}

// Current returns what the configuration says now. It never fails: a missing,
// unreadable or broken file means no narrowing, that is the zero Range.
//
// It is made to be called in every handshake: the files are read again only
// when one of them, or an environment variable they depend on, has changed.
// A change of a file that has been as it is for a while counts after a second
// at the latest, any other change at once.
func Current() Range {
	cache.Lock()
	last := cache.last
	cache.Unlock()
	if last != nil && last.valid() {
		return last.allowed
	}

	fresh := load()
	cache.Lock()
	cache.last = fresh
	cache.Unlock()
	return fresh.allowed
}

// snapshot is an answer together with everything it was made from.
type snapshot struct {
	allowed Range
	*evidence
}

// load reads the configuration, whatever the cache holds.
func load() *snapshot {
	w := newWitness()
	allowed, err := w.systemRange()
	if err != nil {
		// OpenSSL drops a file that does not parse as a whole
		// (CONF_modules_load_file_ex in crypto/conf/conf_mod.c), and
		// with the flags it uses at start-up nobody hears of it.
		allowed = Range{}
	}
	return &snapshot{allowed: allowed, evidence: &w.evidence}
}

// systemRange finds the configuration file and reads it.
func (w *witness) systemRange() (Range, error) {
	// CONF_get1_default_config_file (crypto/conf/conf_mod.c) takes the
	// variable whenever it is set. An empty value names a file that cannot
	// exist, hence no configuration at all, and not the usual places.
	candidates := usualFiles
	if path, set := w.getenv("OPENSSL_CONF"); set {
		candidates = []string{path}
	}
	for _, path := range candidates {
		info, err := w.stat(path)
		if err != nil {
			return Range{}, err
		}
		if info != nil {
			return w.rangeOf(path, info)
		}
	}
	return Range{}, nil
}

// rangeOf returns what the configuration file that stat saw at path allows. One
// that cannot be read allows everything.
func (w *witness) rangeOf(path string, info fs.FileInfo) (Range, error) {
	main, err := w.read(path, info)
	if main == nil || err != nil {
		return Range{}, err
	}
	conf, err := parse(w, main)
	if err != nil {
		return Range{}, err
	}
	return conf.tlsRange(), nil
}

// elevated is true in a set-user-ID or set-group-ID program.
var elevated = os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()

// lookupEnv does what ossl_safe_getenv (crypto/getenv.c) does: a program that
// runs with more rights than its caller has does not let the caller's
// environment choose its configuration.
func lookupEnv(name string) (value string, set bool) {
	if elevated {
		return "", false
	}
	return os.LookupEnv(name)
}
