"""The judge of the soak: a planted leak is caught, and noise is not taken for one."""

import random
import unittest

import judge

MIB = judge.MIB


def samples(leak_per_hour=0.0, descriptor_leak=0.0, thread_leak=0.0, seconds=1800, period=5, seed=1):
    """Of a server that warms up for 300 s, whose memory varies by megabytes, and which leaks as told."""
    source = random.Random(seed)
    made = []
    for second in range(0, seconds, period):
        warm = 60 * MIB * min(1, second / 300)
        noise = source.choice((0, 0, 0, 2 * MIB)) + source.randrange(MIB // 4)
        rss = 40 * MIB + warm + noise + leak_per_hour * second / 3600
        made.append(judge.Sample(second, int(rss), 30 + source.randrange(5) + int(descriptor_leak * second), 9 + int(thread_leak * second)))
    return made


class JudgeTest(unittest.TestCase):
    def test_a_server_that_does_not_leak_is_not_blamed(self):
        for seed in range(20):
            with self.subTest(seed):
                self.assertEqual(judge.faults(samples(seed=seed), warm_up=400), [])

    def test_a_planted_leak_of_memory_is_caught(self):
        for seed in range(20):
            for leak in (2, 4, 100):
                with self.subTest(seed=seed, leak=leak):
                    found = judge.faults(samples(leak_per_hour=leak * MIB, seed=seed), warm_up=400)
                    self.assertTrue(found and "resident memory" in found[0], found)

    def test_a_planted_leak_of_descriptors_or_threads_is_caught(self):
        self.assertIn("descriptors", judge.faults(samples(descriptor_leak=0.02), warm_up=400)[0])
        self.assertIn("threads", judge.faults(samples(thread_leak=0.002), warm_up=400)[0])

    def test_what_grows_only_in_the_warm_up_is_no_leak(self):
        self.assertNotEqual(judge.faults(samples(), warm_up=0), [])
        self.assertEqual(judge.faults(samples(), warm_up=400), [])

    def test_too_little_to_judge_is_an_error(self):
        with self.assertRaises(ValueError):
            judge.faults(samples(seconds=420), warm_up=400)


if __name__ == "__main__":
    unittest.main()
