package verify

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"migproxy/migrator/imapwire"
)

// conclude says what is wrong.
func (c *comparison) conclude() {
	c.matchByOctets()
	for _, p := range c.pairs {
		c.judge(p)
	}
	for _, a := range c.absent {
		c.f.Missing++
		text := fmt.Sprintf("was copied to UID %d, which the target does not have", a.targetUID)
		if a.claimed {
			text = fmt.Sprintf("was copied to UID %d, which the ledger has for another message as well", a.targetUID)
		}
		if a.source >= 0 {
			text += "; on the source " + c.source.describe(a.source)
		} else {
			text += "; it has left the source as well"
		}
		c.add(Missing, Difference{SourceUID: a.sourceUID, Text: text})
	}
	for _, s := range c.fresh {
		c.f.NotCopied++
		c.add(NotCopied, Difference{SourceUID: c.source.messages[s].uid,
			Text: "is on the source and not yet copied: " + c.source.describe(s)})
	}
	c.judgeSurplus()
	c.f.Gone += int64(len(c.gone) + len(c.past))
}

// judge compares the two messages of a pair.
func (c *comparison) judge(p pair) {
	same := c.judgeOctets(p)
	same = c.judgeFlags(p) && same
	s, t := &c.source.messages[p.source], &c.target.messages[p.target]
	if s.date != noDate && s.date != t.date {
		same = false
		c.f.Dates++
		c.add(Date, Difference{SourceUID: s.uid, TargetUID: t.uid,
			Text: fmt.Sprintf("is of %s on the source and of %s on the target", showDate(s.date), showDate(t.date))})
	}
	if same {
		c.f.Same++
	}
}

// judgeFlags compares flags, as far as the target permits them and can be told.
func (c *comparison) judgeFlags(p pair) bool {
	if c.source.bare {
		return true
	}
	source, target := c.source.flags(p.source), c.target.flags(p.target)
	lacks, has := flagDifference(source, target)
	if c.known != nil {
		has = slices.DeleteFunc(has, func(f string) bool { return !strings.HasPrefix(f, `\`) && !c.known[strings.ToLower(f)] })
	}
	if len(lacks)+len(has) == 0 {
		return true
	}
	permits := c.target.permits
	if len(has) == 0 && !slices.ContainsFunc(lacks, func(f string) bool {
		return imapwire.IsFlag(f) && (permits == nil || permits[strings.ToLower(f)])
	}) {
		c.f.NotPermitted++
		return true
	}
	c.f.Flags++
	c.add(Flags, Difference{SourceUID: c.source.messages[p.source].uid, TargetUID: c.target.messages[p.target].uid,
		Text: fmt.Sprintf("has the flags (%s) on the source and (%s) on the target", source, target)})
	return false
}

// judgeOctets compares octets, or their number where they were not to be read.
func (c *comparison) judgeOctets(p pair) bool {
	s, t := &c.source.messages[p.source], &c.target.messages[p.target]
	noted, altered := c.altered(s.uid, t.uid)
	was, readSource := c.source.sum(p.source)
	is, readTarget := c.target.sum(p.target)
	d := Difference{SourceUID: s.uid, TargetUID: t.uid}
	switch {
	case readSource && readTarget && was == is:
		c.f.Digest++
		return true
	case readSource && readTarget:
		c.f.Digest++
		altered = altered && was == noted.SourceSHA256 && is == noted.TargetSHA256
	case c.deep || !c.explained(p):
		c.f.Unread++
		d.Text = fmt.Sprintf("the %s lists it and does not give it", unreadSide(readSource, readTarget))
		c.add(Unread, d)
		return false
	case altered:
		was, is = noted.SourceSHA256, noted.TargetSHA256
	default:
		return true
	}
	d.SourceSHA256, d.TargetSHA256 = hex.EncodeToString(was[:]), hex.EncodeToString(is[:])
	if altered {
		c.f.Altered++
		d.Text = fmt.Sprintf("was altered by the target, as was noted when it was copied: %d octets became %d", noted.SourceOctets, noted.TargetOctets)
		c.add(Altered, d)
		return true
	}
	c.f.Octets++
	d.Text = fmt.Sprintf("has other octets on the target: %d on the source, %d on the target", s.octets, t.octets)
	c.add(Octets, d)
	return false
}

func unreadSide(readSource, readTarget bool) string {
	switch {
	case readSource:
		return "target"
	case readTarget:
		return "source"
	default:
		return "server, on either side,"
	}
}

// judgeSurplus tells deliveries from copies that are there once more.
func (c *comparison) judgeSurplus() {
	// What each may be a double of: a message that the ledger knows, and the UID
	// of its original, 0 where that has left the source.
	originals := map[[32]byte]pair{}
	for _, t := range c.surplus {
		if sum, ok := c.target.sum(t); ok {
			originals[sum] = pair{-1, -1}
		}
	}
	if len(originals) == 0 {
		c.f.Surplus += int64(len(c.surplus))
		return
	}
	known := slices.Clone(c.pairs)
	for _, t := range c.gone {
		known = append(known, pair{-1, t})
	}
	for _, p := range known {
		if sum, ok := c.target.sum(p.target); ok {
			if _, wanted := originals[sum]; wanted {
				originals[sum] = p
			}
		}
	}
	for _, t := range c.surplus {
		sum, ok := c.target.sum(t)
		of := originals[sum]
		if !ok || of.target < 0 {
			c.f.Surplus++
			continue
		}
		c.f.Doubled++
		d := Difference{TargetUID: c.target.messages[t].uid, TargetSHA256: hex.EncodeToString(sum[:]),
			Text: fmt.Sprintf("is on the target once more: UID %d has the octets of UID %d, and the source has no further one",
				c.target.messages[t].uid, c.target.messages[of.target].uid)}
		if of.source >= 0 {
			d.SourceUID = c.source.messages[of.source].uid
		}
		c.add(Doubled, d)
	}
}

// add lists a difference, up to maxDifferences of its kind.
func (c *comparison) add(k Kind, d Difference) {
	n := 0
	for i := range c.f.Differences {
		if c.f.Differences[i].Kind == k {
			n++
		}
	}
	if n == maxDifferences {
		c.f.Unlisted++
		return
	}
	d.Kind = k
	c.f.Differences = append(c.f.Differences, d)
}
