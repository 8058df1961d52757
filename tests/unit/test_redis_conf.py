from ansible_collections.redisops.recovery.plugins.module_utils.redis_conf import RedisConf
def test_x():
    c = RedisConf("a 1\n")
    c.set("b", [("x y",)])
    assert c.render() == 'a 1\nb "x y"\n'
