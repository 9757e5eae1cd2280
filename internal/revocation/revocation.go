// Package revocation answers whether a certificate is revoked: by a stapled OCSP response, by what is remembered, by OCSP
// (RFC 6960) and by CRLs (RFC 5280, Section 5), in this order.
package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sslstream/sslstream/internal/fetch"
)

// Status is what is known of a certificate.
type Status int

// The statuses. Only Unavailable, the zero value, is not signed by anybody.
const (
	Unavailable Status = iota // nobody could say
	Good
	Revoked
	Unknown // the responder says that it does not know
)

var statusNames = [...]string{"unavailable", "good", "revoked", "unknown"}

func (s Status) String() string { return statusNames[s] }

// Where an answer is from, if not from a URL.
const (
	FromStaple = "staple"
	FromCache  = "cache"
)

const (
	// clockSkew is how far a responder's clock may be ahead of ours. An answer that has run out gets no such grace.
	clockSkew = 5 * time.Minute
	// openEnded is how long an OCSP response counts that does not say until when (RFC 6960, Section 4.2.2.1: newer
	// information is available all the time).
	openEnded = time.Hour
	// failureMemory is how long a question that got no answer is not asked again.
	failureMemory = 10 * time.Second
	// patience is how long a service must have been given before its silence is remembered as a failure.
	patience = 5 * time.Second
	// maxServices is how many services of each kind one certificate may name and have asked.
	maxServices = 4
)

// Answer is what was found out about a certificate.
type Answer struct {
	Status    Status
	Source    string    // FromStaple, FromCache or a URL: the last one asked where the status is Unavailable, "" where there is none
	Made      time.Time // thisUpdate: of two answers the later one knows more
	From      time.Time // the answer counts from here
	Until     time.Time // to here
	RevokedAt time.Time
	Reason    int // RFC 5280, Section 5.3.1
	Raw       []byte
	Err       error // for all but Good: why
}

// counts says whether the answer is one at this moment.
func (a *Answer) counts(now time.Time) bool { return !now.Before(a.From) && !now.After(a.Until) }

// onHold says whether the answer is a revocation that may be taken back (RFC 5280, Section 5.3.1). All others are for good.
func (a *Answer) onHold() bool {
	const certificateHold = 6
	return a.Status == Revoked && a.Reason == certificateHold
}

// decide is what several answers about one certificate say together at a moment: the one of them that counts, nil for none.
// A revocation for good does, also beyond its end, and from the date on that it gives, however much later it was made. Of what
// says good and what says on hold the later one does, and what says good does not where something later, or as late, has said on
// hold, whether that has run out or not. Of equals the first does.
func decide(now time.Time, answers ...*Answer) *Answer {
	var good, hold, lastHold *Answer
	later := func(a, than *Answer) bool { return than == nil || a.Made.After(than.Made) }
	for _, a := range answers {
		switch {
		case a == nil:
		case a.Status == Revoked && !a.onHold() && !a.RevokedAt.IsZero() && !now.Before(a.RevokedAt):
			return a
		case now.Before(a.From):
		case a.Status == Revoked && !a.onHold():
			return a
		case a.Status == Revoked:
			if later(a, lastHold) {
				lastHold = a
			}
			if a.counts(now) && later(a, hold) {
				hold = a
			}
		case a.Status == Good && a.counts(now) && later(a, good):
			good = a
		}
	}
	if good != nil && later(good, lastHold) {
		return good
	}
	return hold
}

// period is why an answer does not count at this moment.
func (a *Answer) period(now time.Time) error {
	if now.Before(a.From) {
		return fmt.Errorf("is not valid before %s", a.From.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("ran out on %s", a.Until.UTC().Format(time.RFC3339))
}

// Cache remembers answers. The zero value is not ready to use: see NewCache.
type Cache struct {
	memory   *fetch.Memory
	asking   fetch.Flights[question, *Answer]
	fetching fetch.Flights[question, *revocationList]
}

// NewCache makes a cache of at most so many bytes, more or less.
func NewCache(bytes int) *Cache { return &Cache{memory: fetch.NewMemory(bytes)} }

// Checker answers for one validation. Its methods may be called at once.
type Checker struct {
	Cache  *Cache
	Client *http.Client // nil: fetch's own
	Budget *fetch.Budget
	Now    time.Time // the moment to answer for
}

// question tells what is asked apart from what else is asked at the same time, and from what failed before.
type question struct {
	client *http.Client
	url    string
	about  key
	fresh  bool // what is remembered does not do
}

// Local answers without asking anybody: by the staple (a DER OCSP response, or nil), or by what is remembered. staple says what
// is wrong with one that does not count, or why it is not the answer.
func (c *Checker) Local(cert, issuer *x509.Certificate, staple []byte) (answer Answer, stapleErr error) {
	about := certKey(cert, issuer)
	if len(staple) == 0 {
		return c.remembered(about, cert, issuer), nil
	}
	stapled, err := c.stapled(about, cert, issuer, staple)
	if err != nil {
		return c.remembered(about, cert, issuer), fmt.Errorf("the stapled OCSP response %w", err)
	}
	// The peer may choose among responses that have not run out: what is known here has a say.
	switch decided := c.decide(c.Now, stapled, about, cert, issuer); {
	case decided == nil && stapled.Status == Good:
		return Answer{}, fmt.Errorf("the stapled OCSP response %w", superseded(stapled))
	case decided == nil || decided.Status == stapled.Status: // or it says unknown, and nobody knows better
		return *stapled, stapled.Err
	default:
		return fromCache(decided), stapled.Err
	}
}

// stapled checks a staple, once for as long as it is remembered.
func (c *Checker) stapled(about key, cert, issuer *x509.Certificate, staple []byte) (*Answer, error) {
	answer, err := new(Answer), error(nil)
	if known, ok := c.Cache.memory.Get(about).(*Answer); ok && string(known.Raw) == string(staple) {
		*answer = *known
	} else if answer, err = parseOCSP(staple, cert, issuer); err != nil {
		return nil, err
	}
	if !answer.counts(c.Now) {
		return nil, answer.period(c.Now)
	}
	c.Cache.remember(about, answer)
	answer.Source = FromStaple
	answer.explain()
	return answer, nil
}

// known is all that is remembered of a certificate, whether it counts or not.
func (c *Checker) known(about key, cert, issuer *x509.Certificate) (all []*Answer) {
	if known, ok := c.Cache.memory.Get(about).(*Answer); ok {
		all = append(all, known)
	}
	for _, url := range services(cert.CRLDistributionPoints) {
		for _, list := range c.Cache.lists(listKey(url, issuer)) {
			if a, err := list.look(cert); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// decide is what an answer says together with what is remembered; it wins over an equal.
func (c *Checker) decide(now time.Time, a *Answer, about key, cert, issuer *x509.Certificate) *Answer {
	return decide(now, append([]*Answer{a}, c.known(about, cert, issuer)...)...)
}

// remembered is what is remembered and counts.
func (c *Checker) remembered(about key, cert, issuer *x509.Certificate) Answer {
	if decided := decide(c.Now, c.known(about, cert, issuer)...); decided != nil {
		return fromCache(decided)
	}
	return Answer{}
}

func fromCache(a *Answer) Answer {
	found := *a
	found.Source = FromCache
	found.explain()
	return found
}

// useless is why an answer is none at a moment.
func useless(a *Answer, now time.Time) error {
	if !a.counts(now) {
		return fmt.Errorf("the answer %w", a.period(now))
	}
	return fmt.Errorf("the answer %w", superseded(a))
}

// superseded is why an answer does not count besides what is remembered.
func superseded(a *Answer) error {
	return fmt.Errorf("of %s is older than one that says revoked", a.Made.UTC().Format(time.RFC3339))
}

// Ask asks the certificate's services, first OCSP, then CRLs, until one has an answer. The error of an answer that is
// Unavailable says what each one did.
func (c *Checker) Ask(ctx context.Context, cert, issuer *x509.Certificate) Answer {
	about := certKey(cert, issuer)
	type service struct {
		kind, url string
		ask       func(ctx context.Context, url string) (*Answer, error)
	}
	var all []service
	for _, url := range services(cert.OCSPServer) {
		all = append(all, service{"OCSP", url, func(ctx context.Context, url string) (*Answer, error) {
			return c.askOCSP(ctx, about, cert, issuer, url, false)
		}})
	}
	for _, url := range services(cert.CRLDistributionPoints) {
		all = append(all, service{"CRL", url, func(ctx context.Context, url string) (*Answer, error) {
			return c.askCRL(ctx, about, cert, issuer, url)
		}})
	}
	if len(all) == 0 {
		return Answer{Err: errors.New("the certificate names no OCSP responder and no CRL that can be asked over http or https")}
	}
	none := Answer{}
	var failures []error
	for i, s := range all {
		mine, cancel := share(ctx, len(all)-i > 1)
		answer, err := s.ask(mine, s.url)
		cancel()
		if err == nil {
			decided := c.decide(c.Now, answer, about, cert, issuer)
			switch {
			case decided != nil && decided != answer && decided.Status == Revoked:
				return fromCache(decided) // it came meanwhile
			case answer.Status == Unknown && answer.counts(c.Now), decided == answer:
				found := *answer
				found.Source = s.url
				found.explain()
				return found
			case decided != nil:
				return fromCache(decided)
			}
			err = useless(answer, c.Now)
		}
		none.Source = s.url
		failures = append(failures, fmt.Errorf("%s by %s: %w", s.kind, shortened(s.url), err))
		if ctx.Err() != nil {
			break
		}
	}
	none.Err = errors.Join(failures...)
	return none
}

// share is one service's share of the time that ctx leaves: half of it where others may be asked yet.
func share(ctx context.Context, others bool) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok && others {
		return context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	return ctx, func() {}
}

// services are those of the URLs that can be asked.
func services(urls []string) []string {
	var usable []string
	for _, u := range urls {
		if len(usable) < maxServices && fetch.Allowed(u) == nil {
			usable = append(usable, u)
		}
	}
	return usable
}

// explain sets the error of an answer that is not good.
func (a *Answer) explain() {
	by := a.Source
	if by == FromStaple {
		by = "the stapled OCSP response"
	} else if by == FromCache {
		by = "what is remembered of its issuer"
	}
	switch a.Status {
	case Revoked:
		a.Err = fmt.Errorf("revoked on %s (%s), says %s", a.RevokedAt.UTC().Format(time.RFC3339), reasonName(a.Reason), by)
	case Unknown:
		a.Err = fmt.Errorf("not known to the OCSP responder, says %s", by)
	}
}

// reasonName is the reason's name in RFC 5280, Section 5.3.1.
func reasonName(reason int) string {
	names := [...]string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
		"certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}
	if reason >= 0 && reason < len(names) && names[reason] != "" {
		return names[reason]
	}
	return fmt.Sprintf("reason %d", reason)
}

// shortened is text for an error message, of which a peer may have chosen the length.
func shortened(text string) string {
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
